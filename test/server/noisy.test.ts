import { once } from 'node:events'
import { Agent, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { mastersGroup } from '../../src/auth/identity.ts'
import { Namespace, namespaceNamed } from '../../src/resources/kinds.ts'
import { defaultLimits } from '../../src/server/limits.ts'
import { type Lab, lab, machine, machines } from './fixture.ts'

const fair = {
  ...defaultLimits.fair,
  seats: 4,
  seatsOfOne: 3,
  waitingOfOne: 20,
  waiting: 60,
  watchesOfOne: 5,
}
const leases = '/apis/coordination.k8s.io/v1/namespaces/plasmavmc-system/leases'

let server: Lab
/** Lets reads of the machine `stuck` go on. */
let release: () => void
let port: number
const agent = new Agent({ keepAlive: true })

/** A server to which `Bearer NAME` is the user NAME; its store answers reads of one machine when it is told to. */
beforeEach(async () => {
  server = await lab({
    limits: { ...defaultLimits, fair },
    authorize: () => true,
    authenticate: ({ headers }) => {
      const name = /Bearer (\w+)/.exec(JSON.stringify(headers))?.[1] ?? ''
      return { ok: true, identity: { name, groups: name === 'admin' ? [mastersGroup] : [] } }
    },
  })
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const get = server.objects.get.bind(server.objects)
  server.objects.get = (async (kind: never, ref: { name: string }) => {
    if (ref.name === 'stuck') await released
    return get(kind, ref as never)
  }) as never
  for (const name of ['stuck', 'quick']) await server.call('POST', machines, machine(name))
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  port = (server.app.server.address() as AddressInfo).port
})
afterEach(async () => {
  await server.app.close()
})

interface Answered {
  readonly code: number
  readonly retryAfter: string | undefined
  readonly text: string
}

function ask(user: string, path = `${machines}/quick`, method = 'GET', body = ''): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: `Bearer ${user}`,
      ...(body !== '' && { 'content-type': 'application/json' }),
    }
    const sent = request({ host: '127.0.0.1', port, path, method, headers, agent }, (answer) => {
      let text = ''
      answer.on('data', (chunk) => {
        text += chunk
      })
      answer.on('end', () => {
        const retryAfter = answer.headers['retry-after']
        resolve({ code: answer.statusCode ?? 0, retryAfter, text })
      })
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

/** More requests than the server holds for one user, none of which ends before `release`. */
async function flood(user: string, count = 60) {
  const answers = Array.from({ length: count }, () => ask(user, `${machines}/stuck`))
  const refused = count - fair.seatsOfOne - fair.waitingOfOne
  let told = 0
  for (const answer of answers)
    void answer.then(({ code }) => {
      told += Number(code === 429)
    })
  await expect.poll(() => told, { timeout: 20_000 }).toBe(refused)
  return () => {
    release()
    return Promise.all(answers)
  }
}

it('a noisy user waits for turns of its own, another is served meanwhile', async () => {
  const end = await flood('noisy')
  for (let i = 0; i < 20; i += 1) expect((await ask('quiet')).code).toBe(200)
  expect((await ask('noisy')).code).toBe(429)
  const codes = (await end()).map(({ code }) => code).sort()
  expect(codes).toEqual([...Array(23).fill(200), ...Array(37).fill(429)])
})

it('who is told to come later is told when, and is served then', async () => {
  const end = await flood('noisy')
  const { code, retryAfter, text } = await ask('noisy')
  expect([code, retryAfter]).toEqual([429, '1'])
  expect(JSON.parse(text)).toMatchObject({
    ...{ kind: 'Status', reason: 'TooManyRequests', code: 429 },
    details: { retryAfterSeconds: 1 },
  })
  await end()
  expect((await ask('noisy')).code).toBe(200)
})

it('health and the leases of hosts wait for nobody', async () => {
  await server.objects.create(Namespace, namespaceNamed('plasmavmc-system'))
  const end = await flood('noisy')
  const lease = (name: string) =>
    JSON.stringify({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name }, spec: {} })
  const others = await Promise.all([
    ...['/livez', '/readyz', '/version'].map((path) => ask('noisy', path)),
    ...['a', 'b', 'c'].map((name) => ask('noisy', leases, 'POST', lease(name))),
  ])
  await end()
  expect(others.map(({ code }) => code)).toEqual([200, 200, 200, 201, 201, 201])
})

it('watches take no place of other requests, but one user has only so many', async () => {
  const watches = Array.from({ length: 6 }, () => {
    const path = `${machines}?watch=true`
    const sent = request({ host: '127.0.0.1', port, path, headers: { authorization: 'Bearer a' } })
    sent.on('error', () => {})
    sent.end()
    return once(sent, 'response').then(([answer]) => {
      answer.resume()
      return { code: answer.statusCode as number, end: () => sent.destroy() }
    })
  })
  const begun = await Promise.all(watches)
  expect(begun.map(({ code }) => code).sort()).toEqual([200, 200, 200, 200, 200, 429])
  expect((await Promise.all(['a', 'a', 'a', 'b'].map((user) => ask(user)))).map(({ code }) => code)).toEqual([
    ...[200, 200, 200, 200],
  ])
  for (const { end } of begun) end()
  const again = async () => (await ask('a', `${machines}?watch=true&timeoutSeconds=1`)).code
  await expect.poll(again, { timeout: 20_000 }).toBe(200)
})

it('clients that leave while they wait leave no trace', async () => {
  const gone = Array.from({ length: 20 }, () => {
    const sent = request({
      host: '127.0.0.1',
      port,
      path: `${machines}/stuck`,
      headers: { authorization: 'Bearer a' },
    })
    sent.on('error', () => {})
    sent.end()
    return sent
  })
  await once(server.app.server, 'request')
  for (const sent of gone) sent.destroy()
  release()
  const three = () => Promise.all([ask('a'), ask('a'), ask('a')])
  await expect.poll(async () => (await three()).map(({ code }) => code)).toEqual([200, 200, 200])
})

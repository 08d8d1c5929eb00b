import { once } from 'node:events'
import { Agent, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { mastersGroup } from '../../src/auth/identity.ts'
import { sleep, systemClock } from '../../src/lib/clock.ts'
import { Namespace } from '../../src/resources/kinds.ts'
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
/** How long a read takes in this store, ms. */
const readMs = 40

let server: Lab
let port: number
const agent = new Agent({ keepAlive: true })

/** A server to which `Bearer NAME` is the user NAME; its store answers reads of one machine slowly. */
beforeEach(async () => {
  server = await lab({
    limits: { ...defaultLimits, fair },
    authorize: () => true,
    authenticate: ({ headers }) => {
      const name = /Bearer (\w+)/.exec(JSON.stringify(headers))?.[1] ?? ''
      return { ok: true, identity: { name, groups: name === 'admin' ? [mastersGroup] : [] } }
    },
  })
  const get = server.objects.get.bind(server.objects)
  server.objects.get = (async (kind: never, ref: { name: string }) => {
    if (ref.name === 'slow') await sleep(systemClock, readMs)
    return get(kind, ref as never)
  }) as never
  await server.call('POST', machines, machine('slow'))
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  port = (server.app.server.address() as AddressInfo).port
})
afterEach(async () => {
  await server.app.close()
})

interface Answered {
  readonly code: number
  readonly retryAfter: string | undefined
  readonly ms: number
  readonly text: string
}

function ask(user: string, path = `${machines}/slow`, method = 'GET', body = ''): Promise<Answered> {
  const began = performance.now()
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
        resolve({ code: answer.statusCode ?? 0, retryAfter, ms: performance.now() - began, text })
      })
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

/** Asks again and again as this many clients at once, until it is told to end. */
function flood(user: string, clients: number) {
  let on = true
  const codes: number[] = []
  const client = async () => {
    while (on) codes.push((await ask(user)).code)
  }
  const all = Array.from({ length: clients }, client)
  const end = () => {
    on = false
    return Promise.all(all)
  }
  return { codes, end }
}

it('a noisy user waits for turns of its own, another is served as if alone', async () => {
  const noisy = flood('noisy', 80)
  await expect.poll(() => noisy.codes.includes(429)).toBe(true)
  const quiet: Answered[] = []
  for (let i = 0; i < 20; i += 1) quiet.push(await ask('quiet'))
  await noisy.end()
  expect(quiet.map(({ code }) => code)).toEqual(Array(20).fill(200))
  // Behind the noisy one's queue of 20, with 3 at a time, each would take 7 reads' time at least.
  const [fastest = 0] = quiet.map(({ ms }) => ms).sort((a, b) => a - b)
  expect(fastest).toBeLessThan(readMs * 4)
})

it('who is told to come later is told when', async () => {
  const all = await Promise.all(Array.from({ length: 200 }, () => ask('noisy')))
  const refused = all.filter(({ code }) => code === 429)
  expect(all.filter(({ code }) => code === 200).length).toBeGreaterThanOrEqual(23)
  expect(refused.length).toBeGreaterThan(0)
  for (const { retryAfter, text } of refused) {
    expect(retryAfter).toBe('1')
    expect(JSON.parse(text)).toMatchObject({
      ...{ kind: 'Status', reason: 'TooManyRequests', code: 429 },
      details: { retryAfterSeconds: 1 },
    })
  }
  expect((await ask('noisy')).code).toBe(200)
})

it('health and the leases of hosts wait for nobody', async () => {
  await server.objects.create(Namespace, {
    ...{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'plasmavmc-system' }, spec: {} },
  })
  const noisy = flood('noisy', 80)
  await expect.poll(() => noisy.codes.includes(429)).toBe(true)
  const lease = (name: string) =>
    JSON.stringify({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name }, spec: {} })
  const others = await Promise.all([
    ...['/livez', '/readyz', '/version'].map((path) => ask('noisy', path)),
    ...['a', 'b', 'c'].map((name) => ask('noisy', leases, 'POST', lease(name))),
  ])
  await noisy.end()
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
      path: `${machines}/slow`,
      headers: { authorization: 'Bearer a' },
    })
    sent.on('error', () => {})
    sent.end()
    return sent
  })
  await once(server.app.server, 'request')
  for (const sent of gone) sent.destroy()
  await expect
    .poll(async () => (await Promise.all([ask('a'), ask('a'), ask('a')])).map(({ code }) => code))
    .toEqual([...[200, 200, 200]])
})

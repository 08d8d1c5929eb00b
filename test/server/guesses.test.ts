import { afterEach, beforeEach, expect, it } from 'vitest'
import { FailedAttempts } from '../../src/auth/attempts.ts'
import { authenticate } from '../../src/auth/authenticate.ts'
import { Replays } from '../../src/auth/replays.ts'
import { makeToken } from '../../src/auth/token.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { credentials } from '../auth/fixture.ts'
import { machine, machines } from './fixture.ts'
import { codesOf, type Door, door, identity } from './raw.ts'

let at: Door
beforeEach(async () => {
  const key = { secret: credentials.secretAccessKey, identity }
  const secretOf = (id: string) => (id === credentials.accessKeyId ? key : undefined)
  const fixed = { secretOf, region: 'local', service: 'plasmavmc' }
  const guards = { attempts: new FailedAttempts(), replays: new Replays() }
  at = await door({
    authenticate: (request) => authenticate(request, { ...fixed, ...guards, now: Date.now() }),
  })
})
afterEach(() => at.close())

const type = { 'content-type': 'application/json' }
const create = (name: string) =>
  at.signed({ method: 'POST', target: machines, body: JSON.stringify(machine(name)), headers: type })

it('does what a signed request asks for once, whoever sends it again', async () => {
  const sent = create('once')
  expect(codesOf(await at.send(sent))).toEqual([201])
  await at.server.objects.delete(VirtualMachine, { name: 'once', namespace: 'default' })
  const again = await at.send(sent)
  expect(codesOf(again)).toEqual([401])
  expect(again).toContain('SignatureReplayed: this signature came before')
  expect((await at.server.objects.list(VirtualMachine)).items).toEqual([])
})

it('does it once where both come at once', async () => {
  const sent = create('both')
  const codes = await Promise.all(Array.from({ length: 8 }, async () => codesOf(await at.send(sent))))
  expect(codes.flat().sort()).toEqual([201, 401, 401, 401, 401, 401, 401, 401])
})

it('serves reads and bearer tokens again and again', async () => {
  const read = at.signed({ target: machines })
  const { token } = makeToken({ host: at.host, credentials, now: Date.now() })
  const patch = (n: number) => {
    const body = JSON.stringify({ metadata: { labels: { n: String(n % 2) } } })
    const head = `PATCH ${machines}/web HTTP/1.1\r\nhost: ${at.host}\r\nauthorization: Bearer ${token}`
    return `${head}\r\ncontent-type: application/merge-patch+json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`
  }
  expect(codesOf(await at.send(create('web')))).toEqual([201])
  for (let i = 0; i < 4; i += 1) {
    expect(codesOf(await at.send(read))).toEqual([200])
    expect(codesOf(await at.send(patch(i)))).toEqual([200])
  }
})

it('asks one who guesses to wait, in the words of HTTP and of Kubernetes, and nobody elsewhere', async () => {
  const wrong = at.signed({ target: machines }).replace(/Signature=\w{8}/, 'Signature=00000000')
  const codes: number[] = []
  for (let i = 0; i < 30 && !codes.includes(429); i += 1) codes.push(...codesOf(await at.send(wrong)))
  expect(codes.slice(0, -1)).toEqual(Array(codes.length - 1).fill(401))
  expect(codes.length).toBeGreaterThan(20)
  const answer = await at.send(wrong)
  expect(answer).toMatch(/\r\nretry-after: 1\r\n/)
  expect(JSON.parse(answer.slice(answer.indexOf('{')))).toMatchObject({
    ...{ kind: 'Status', reason: 'TooManyRequests', code: 429, details: { retryAfterSeconds: 1 } },
    message: expect.stringMatching(/^Throttling: /),
  })
  // Linux has all of 127.0.0.0/8: another address of ours.
  expect(codesOf(await at.send(at.signed({ target: machines }), { from: '127.0.0.2' }))).toEqual([200])
})

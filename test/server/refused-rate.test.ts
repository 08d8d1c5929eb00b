import { expect, it } from 'vitest'
import { mastersGroup } from '../../src/auth/identity.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { defaultLimits } from '../../src/server/limits.ts'
import { lab, machines } from './fixture.ts'

const burst = 5

/** A server whose users may do nothing, except `admin`, and `boss`, who may be whoever they want; time stands still. */
const server = () =>
  lab({
    limits: { ...defaultLimits, fair: { ...defaultLimits.fair, ratePerSecond: 1, burst } },
    clock: { ...systemClock, now: systemClock.now, elapsed: () => 0, after: () => () => {} },
    authorize: ({ name }, verb) => name === 'admin' || (name === 'boss' && verb === 'impersonate'),
    authenticate: ({ headers }) => {
      const name = /Bearer (\w+)/.exec(JSON.stringify(headers))?.[1] ?? ''
      return { ok: true, identity: { name, groups: name === 'admin' ? [mastersGroup] : [] } }
    },
  })

type Server = Awaited<ReturnType<typeof server>>

/** The codes of one request more than a user has. */
async function codes({ call }: Server, user: string, headers = {}, path = machines): Promise<number[]> {
  const found: number[] = []
  for (let i = 0; i <= burst; i += 1)
    found.push((await call('GET', path, undefined, { authorization: `Bearer ${user}`, ...headers })).code)
  return found
}

const spent = [...Array(burst).fill(403), 429]
const leases = '/apis/coordination.k8s.io/v1/namespaces/plasmavmc-system/leases'

it('what is refused costs its user what is done does, and another nothing', async () => {
  const at = await server()
  expect(await codes(at, 'guest')).toEqual(spent)
  expect(await codes(at, 'other'), 'another user').toEqual(spent)
})

it('leases are free for those who may have them alone', async () => {
  expect(await codes(await server(), 'guest', {}, leases)).toEqual(spent)
})

it('who may not be somebody pays for it, and the one they named does not', async () => {
  const at = await server()
  expect(await codes(at, 'guest', { 'impersonate-user': 'victim' })).toEqual(spent)
  expect(await codes(at, 'victim')).toEqual(spent)
  const other = await server()
  expect(await codes(other, 'boss', { 'impersonate-user': 'victim' }), 'as who is acted for').toEqual(spent)
  expect(await codes(other, 'boss')).toEqual(spent)
})

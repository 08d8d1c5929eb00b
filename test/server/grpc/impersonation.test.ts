import { once } from 'node:events'
import { status } from '@grpc/grpc-js'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../../../src/lib/clock.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { defaultFairLimits, FairQueue } from '../../../src/server/fair.ts'
import { type CallOptions, type GrpcLab, grpcLab } from './fixture.ts'

let lab: GrpcLab

const as = (user: string, ...groups: string[]): CallOptions => ({
  more: [['impersonate-user', user], ...groups.map((group) => ['impersonate-group', group] as const)],
})

/** What was counted against whose rate. */
const spent: string[] = []
const fair = new FairQueue(defaultFairLimits, systemClock)
fair.spend = (user) => void spent.push(user)

/** `admin` may be alice, and of the group ops; alice may list machines, ops may make them. Nobody else may do anything. */
beforeAll(async () => {
  lab = await grpcLab({
    fair,
    authorize: ({ name, groups }, verb, target) => {
      if (verb === 'impersonate')
        return name === 'admin' && 'name' in target && /^(alice|ops)$/.test(target.name ?? '')
      if (verb === 'list') return name === 'alice'
      return verb === 'create' && groups.includes('ops')
    },
  })
})
afterAll(() => lab.close())
beforeEach(() => {
  lab.audits.length = 0
  spent.length = 0
})

test('a call is done with the rights of whom it names, and with those alone', async () => {
  expect((await lab.client.refusal('ListVms')).details).toContain('User "admin" cannot list')
  expect(await lab.client.call('ListVms', {}, as('alice'))).toMatchObject({ vms: [] })
  expect((await lab.client.refusal('CreateVm', { name: 'x' }, as('alice'))).details).toContain(
    'User "alice" cannot create',
  )
  expect(await lab.client.call('CreateVm', { name: 'x' }, as('alice', 'ops'))).toMatchObject({ name: 'x' })
  // In the audit log stands who it was, and as whom.
  expect(lab.audits.at(-1)).toMatchObject({
    user: { username: 'admin' },
    impersonatedUser: { username: 'alice', groups: ['ops', 'system:authenticated'] },
    responseStatus: { code: 200 },
  })
})

test('who may not be them is refused before anything is done, watches too', async () => {
  const { length } = (await lab.objects.list(VirtualMachine)).items
  for (const [options, words] of [
    [as('root'), 'User "admin" cannot impersonate resource "users"'],
    [as('alice', 'ops', 'system:masters'), 'User "admin" cannot impersonate resource "groups"'],
    [{ ...as('alice'), token: 'guest' }, 'User "guest" cannot impersonate'],
  ] as const) {
    const refusal = await lab.client.refusal('CreateVm', { name: 'y' }, options)
    expect([refusal.code, refusal.details]).toEqual([
      status.PERMISSION_DENIED,
      expect.stringContaining(words),
    ])
    const [error] = await once(lab.client.watch({}, options.token, options.more), 'error')
    expect(error.code).toBe(status.PERMISSION_DENIED)
  }
  expect((await lab.objects.list(VirtualMachine)).items).toHaveLength(length)
  expect(lab.audits).toHaveLength(6)
  expect(lab.audits[0]).toMatchObject({
    ...{ user: { username: 'admin' }, impersonatedUser: { username: 'root' } },
    responseStatus: { code: 403 },
  })
})

test('who may not be somebody pays for the call, and not the one they named', async () => {
  await lab.client.refusal('ListVms', {}, { ...as('alice'), token: 'guest' })
  expect(spent).toEqual(['guest'])
})

test.each([
  ['groups without a user', [['impersonate-group', 'ops']], /^impersonate-group: needs Impersonate-User/],
  [
    'a uid',
    [
      ['impersonate-user', 'alice'],
      ['impersonate-uid', '1'],
    ],
    /^impersonate-uid: only/,
  ],
  [
    'extras',
    [
      ['impersonate-user', 'alice'],
      ['impersonate-extra-a', '1'],
    ],
    /^impersonate-extra-a: only/,
  ],
  [
    'two users',
    [
      ['impersonate-user', 'alice'],
      ['impersonate-user', 'bob'],
    ],
    /more than once/,
  ],
] as const)('%s are refused, not ignored', async (_, more, words) => {
  const refusal = await lab.client.refusal('ListVms', {}, { more })
  expect([refusal.code, refusal.details]).toEqual([status.INVALID_ARGUMENT, expect.stringMatching(words)])
})

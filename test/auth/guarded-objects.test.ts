import { beforeEach, describe, expect, it } from 'vitest'
import { allowed, everything, rulesFor } from '../../src/auth/authorize.ts'
import type { Caller } from '../../src/auth/escalation.ts'
import { GuardedObjects, type SecretKeeper } from '../../src/auth/guarded-objects.ts'
import { mastersGroup } from '../../src/auth/identity.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { AccessKey } from '../../src/resources/access-key.ts'
import { ClusterRole } from '../../src/resources/rbac.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import type { TextStore } from '../../src/store/objects.ts'
import { objectsContract } from '../contract/objects.ts'

const role = (rules: ClusterRole['rules']): ClusterRole => ({
  ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', metadata: { name: 'r' } },
  rules,
})
const small = [{ verbs: ['get'], apiGroups: [''], resources: ['events'] }]

function callerOf(name: string, groups: readonly string[] = []): Caller {
  const identity = { name, groups }
  return {
    identity,
    may: (verb, target) => allowed(identity, verb, target),
    rules: (namespace) => rulesFor(identity, namespace),
  }
}

let objects: KvObjects
let kept: Map<string, string>
let keeper: SecretKeeper
beforeEach(() => {
  objects = new KvObjects(new MemoryKv(), { clock: systemClock, newUid: () => crypto.randomUUID() })
  kept = new Map()
  keeper = {
    keep: async (uid, secret) => {
      kept.set(uid, secret)
      return { key: '/nobody', revision: 0n }
    },
    forget: async (uid) => void kept.delete(uid),
    known: async () => {},
  }
})

/** The same store, in which something happens between what a write reads and what it writes. */
function interrupted(during: () => Promise<unknown>): TextStore {
  let once = false
  return new Proxy(objects as TextStore, {
    get(target, name) {
      const member = Reflect.get(target, name) as (...args: unknown[]) => unknown
      if (name !== 'update') return member.bind(target)
      return async (...args: unknown[]) => {
        const { dryRun } = (args[2] ?? {}) as { dryRun?: boolean }
        if (!dryRun && !once) {
          once = true
          await during()
        }
        return member.apply(target, args)
      }
    },
  })
}

objectsContract('memory, guarded', {
  open: async ({ limit } = {}) => {
    const kv = new MemoryKv(limit === undefined ? {} : { historyLimit: limit })
    const own = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
    return new GuardedObjects(own, callerOf('admin', [mastersGroup]), keeper)
  },
  restoresUids: true,
})

describe('a role that is cut meanwhile', () => {
  it('does not get back what it had from who may not grant that', async () => {
    await objects.create(ClusterRole, role([...everything]))
    const cut = async () => {
      const now = await objects.get(ClusterRole, { name: 'r' })
      await objects.update(ClusterRole, { ...now, rules: small })
    }
    const guarded = new GuardedObjects(interrupted(cut), callerOf('mallory'), keeper)
    const same = role([...everything])
    const labelled = { ...same, metadata: { ...same.metadata, labels: { a: 'b' } } }
    await expect(guarded.update(ClusterRole, labelled)).rejects.toMatchObject({ code: 'Conflict' })
    expect((await objects.get(ClusterRole, { name: 'r' })).rules).toEqual(small)
  })
})

describe('the secret of a key', () => {
  const key = (spec: object = {}): AccessKey =>
    ({
      ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'AccessKey', metadata: { name: 'k' } },
      spec: { user: 'a', ...spec },
    }) as AccessKey
  const admin = callerOf('admin', [mastersGroup])

  it('is kept before the key is there, and goes where the key can not be made', async () => {
    const guarded = new GuardedObjects(objects, admin, keeper)
    const made = await guarded.create(AccessKey, key())
    const told = made.status as { secretAccessKey?: string } | undefined
    expect(kept.get(made.metadata.uid ?? '')).toBe(told?.secretAccessKey)
    await expect(guarded.create(AccessKey, key())).rejects.toMatchObject({ code: 'AlreadyExists' })
    expect(kept.size).toBe(1)
    expect((await objects.get(AccessKey, { name: 'k' })).status).toBeUndefined()
  })

  it('is another for a key of the same name, and is not told where it could not be kept', async () => {
    const guarded = new GuardedObjects(objects, admin, keeper)
    const first = await guarded.create(AccessKey, key())
    await guarded.delete(AccessKey, { name: 'k' })
    expect(kept.size).toBe(0)
    const second = await guarded.create(AccessKey, key())
    expect(second.status).not.toEqual(first.status)
    const full = { ...keeper, keep: () => Promise.reject(new Error('full')) }
    const other = { ...key(), metadata: { name: 'other' } }
    await expect(new GuardedObjects(objects, admin, full).create(AccessKey, other)).rejects.toThrow('full')
    await expect(objects.get(AccessKey, { name: 'other' })).rejects.toMatchObject({ code: 'NotFound' })
  })

  it('is not made for whom its maker may not be', async () => {
    const mallory = callerOf('mallory')
    const maker = { ...mallory, may: (verb: string) => verb === 'create' }
    const guarded = new GuardedObjects(objects, maker, keeper)
    const words = expect.stringMatching(/cannot impersonate users "a"/)
    await expect(guarded.create(AccessKey, key())).rejects.toMatchObject({
      code: 'Forbidden',
      message: words,
    })
    expect(kept.size).toBe(0)
  })
})

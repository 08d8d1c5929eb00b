import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, it, onTestFinished } from 'vitest'
import { GuardedObjects } from '../../src/auth/guarded-objects.ts'
import { mastersGroup } from '../../src/auth/identity.ts'
import { KeySecrets, secretsPrefix } from '../../src/auth/key-secrets.ts'
import { forgetOrphans, type OrphanSecretsOptions, orphansEveryMs } from '../../src/auth/orphan-secrets.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { AccessKey } from '../../src/resources/access-key.ts'
import { ApiError } from '../../src/store/errors.ts'
import type { Kv } from '../../src/store/kv.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { openLmdb } from '../../src/store/lmdb.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { runTidy } from '../../src/wire-tidy.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { openAt } from '../fakes/etcd-stores.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'
import { kill, run } from '../store/processes.ts'

const log = silentLog
const objectsOf = (kv: Kv) => new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
const key = (name: string, uid?: string) =>
  ({
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'AccessKey', spec: { user: 'a' } },
    metadata: { name, ...(uid !== undefined && { uid }) },
  }) as AccessKey
const secretsIn = async (kv: Kv) =>
  (await kv.list(secretsPrefix)).entries.map((entry) => entry.key.slice(secretsPrefix.length))
const uidsIn = async (objects: KvObjects) =>
  (await objects.list(AccessKey)).items.map(({ metadata }) => metadata.uid)

/** What there is over a store. */
function over(kv: Kv) {
  const objects = objectsOf(kv)
  const deps: OrphanSecretsOptions = { kv, objects, clock: systemClock, log }
  const readKeys = () => [{ id: 'k', bytes: new Uint8Array(32) }]
  return { kv, objects, deps, secrets: new KeySecrets({ kv, clock: systemClock, log, readKeys }) }
}

let { kv, objects, deps, secrets } = over(new MemoryKv())
beforeEach(() => {
  ;({ kv, objects, deps, secrets } = over(new MemoryKv()))
})

async function twoLooks(): Promise<void> {
  await forgetOrphans(deps, await forgetOrphans(deps, new Set()))
}

it('a server that is killed between the two writes leaves a secret, which is forgotten at the second look', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pvo-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const maker = await run('../auth/key-maker.ts', [folder], 2)
  await kill(maker)
  const [whole, half] = maker.lines()
  const own = await openLmdb(folder)
  onTestFinished(() => own.close())
  const stored = objectsOf(own)
  expect(await uidsIn(stored)).toEqual([whole])
  expect((await secretsIn(own)).sort()).toEqual([whole, half].sort())
  const suspects = await forgetOrphans({ ...deps, kv: own, objects: stored }, new Set())
  expect(await secretsIn(own)).toHaveLength(2)
  expect(await forgetOrphans({ ...deps, kv: own, objects: stored }, suspects)).toBeDefined()
  expect(await secretsIn(own)).toEqual([whole])
})

const stores: Readonly<Record<string, () => Promise<Kv>>> = {
  memory: async () => new MemoryKv(),
  lmdb: () => {
    const folder = mkdtempSync(join(tmpdir(), 'pvo-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    return openLmdb(folder)
  },
  etcd: async () => {
    const lab = await EtcdLab.start()
    onTestFinished(() => lab.close())
    return openAt(lab)
  },
}

it.each(Object.keys(stores))(
  'a key that is made at any moment of a look has its secret, or is not made (%s)',
  async (name) => {
    const own = await stores[name]!()
    onTestFinished(() => own.close())
    ;({ kv, objects, deps, secrets } = over(own))
    const outcomes: string[] = []
    for (let step = 0; ; step += 1) {
      const uid = crypto.randomUUID()
      const provided = await secrets.keep(uid, 's')
      const suspects = await forgetOrphans(deps, new Set())
      expect([...suspects]).toContain(secretsPrefix + uid)
      let steps = 0
      let outcome = ''
      const before =
        <A extends unknown[], R>(work: (...args: A) => Promise<R>) =>
        async (...args: A): Promise<R> => {
          if (steps++ === step)
            outcome = await objects
              .create(AccessKey, key(`k${step}`, uid), { restoreUid: true, provided })
              .then(
                () => 'made',
                (error: ApiError) => error.reason,
              )
          return work(...args)
        }
      const disturbed = {
        ...deps,
        kv: {
          list: before(kv.list.bind(kv)),
          put: before(kv.put.bind(kv)),
          delete: before(kv.delete.bind(kv)),
        },
        objects: { list: before(objects.list.bind(objects)) as never },
      }
      await forgetOrphans(disturbed, suspects)
      const made = (await uidsIn(objects)).includes(uid)
      expect([made, (await secretsIn(kv)).includes(uid)], `step ${step}`).toEqual(
        Array(2).fill(outcome === 'made'),
      )
      if (outcome === '') break
      outcomes.push(outcome)
    }
    // Up to where the secret is written anew it is in time.
    expect(outcomes).toEqual(['made', 'made', 'made', 'Conflict', 'Conflict'])
  },
)

it('who is overtaken by it makes the key with another secret', async () => {
  let overtaken = 0
  const store = new Proxy(objects, {
    get: (target, name) => {
      const own = Reflect.get(target, name) as unknown
      if (name !== 'create') return typeof own === 'function' ? own.bind(target) : own
      return async (kind: never, object: never, options: { dryRun?: boolean }) => {
        if (!options.dryRun && overtaken++ === 0) await twoLooks()
        return target.create(kind, object, options)
      }
    },
  })
  const keeper = {
    keep: (uid: string, secret: string) => secrets.keep(uid, secret),
    forget: (uid: string) => secrets.forget(uid),
    known: async () => {},
  }
  const identity = { name: 'admin', groups: [mastersGroup] }
  const guarded = new GuardedObjects(store, { identity, may: () => true, rules: () => [] }, keeper)
  const made = await guarded.create(AccessKey, key('late'))
  expect(overtaken).toBe(2)
  expect(await secretsIn(kv)).toEqual([made.metadata.uid])
  await twoLooks()
  expect(await secretsIn(kv)).toEqual([made.metadata.uid])
})

it('leaves alone what has its key, and what it could not make sure of', async () => {
  const uid = crypto.randomUUID()
  const provided = await secrets.keep(uid, 's')
  await objects.create(AccessKey, key('k', uid), { restoreUid: true, provided })
  const orphan = crypto.randomUUID()
  await secrets.keep(orphan, 's')
  const suspects = await forgetOrphans(deps, new Set())
  expect([...suspects]).toEqual([secretsPrefix + orphan])
  const { revision } = await kv.list('/')
  // An answer from before, as of a member of etcd that lags behind.
  const list = async () => ({ items: [], resourceVersion: String(revision - 2n) }) as never
  await forgetOrphans({ ...deps, objects: { list } }, new Set([...suspects, secretsPrefix + uid]))
  const fails = { list: () => Promise.reject(new ApiError('ServiceUnavailable', 'away')) }
  await expect(forgetOrphans({ ...deps, objects: fails }, suspects)).rejects.toThrow('away')
  expect((await secretsIn(kv)).sort()).toEqual([uid, orphan].sort())
  await forgetOrphans(deps, suspects)
  expect(await secretsIn(kv)).toEqual([uid])
})

it('is done by the server that tidies, a while after it began', async () => {
  const clock = new VirtualClock()
  const stop = new AbortController()
  await secrets.keep(crypto.randomUUID(), 's')
  const tidy = runTidy({ kv, objects, log, clock }, stop.signal)
  await clock.advance(orphansEveryMs - 1)
  expect(await secretsIn(kv)).toHaveLength(1)
  await clock.advance(1)
  await expect.poll(() => secretsIn(kv)).toEqual([])
  stop.abort()
  await tidy
})

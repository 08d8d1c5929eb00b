import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newKeyLine } from '../../src/auth/secrets-file.ts'
import type { Credentials } from '../../src/auth/sign.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { machines } from './fixture.ts'
import { forbidden, IdentitiesLab, keysPath, merge, pathOf, until } from './identities-lab.ts'

let lab: IdentitiesLab

beforeAll(async () => {
  lab = await IdentitiesLab.start()
})
afterAll(() => lab.close())

/** Whether a key is let in: whoever is may ask who they are. */
const reviewPath = '/apis/authentication.k8s.io/v1/selfsubjectreviews'
const letIn = (credentials: Credentials) => lab.client(credentials).json('POST', reviewPath, { body: {} })

describe('an access key', () => {
  it('lets its user in at once, who may do nothing else yet', async () => {
    const key = await lab.key('new')
    expect(await letIn(key)).toMatchObject({
      status: {
        userInfo: {
          ...{ username: 'new', groups: ['system:authenticated'] },
          extra: { 'authentication.kubernetes.io/credential-id': [`KEY=${key.accessKeyId}`] },
        },
      },
    })
    await expect(lab.client(key).json('GET', machines)).rejects.toMatchObject(
      forbidden(/User "new" cannot list resource "virtualmachines" in API group "plasmavmc.io"/),
    )
    expect(lab.audits.at(-1)).toMatchObject({ user: { username: 'new' }, responseStatus: { code: 403 } })
  })

  it('has a secret that no answer tells again, nor the store in clear', async () => {
    const key = await lab.key('secretive')
    const admin = lab.client()
    const query = { resourceVersion: '1', timeoutSeconds: '1' }
    const frames: unknown[] = []
    for await (const frame of admin.watch(keysPath, { query })) frames.push(frame)
    expect(JSON.stringify(frames)).toContain(key.accessKeyId.toLowerCase())
    const { metadata } = await admin.json<{ metadata: object }>('GET', pathOf(key))
    const texts = [
      ...[JSON.stringify(frames), JSON.stringify(metadata), await admin.text('GET', keysPath)],
      await admin.text('GET', keysPath, { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' }),
      await admin.text('PATCH', pathOf(key), { ...merge, body: { metadata: { labels: { a: 'b' } } } }),
      await admin.text('PATCH', `${pathOf(key)}/status`, {
        ...merge,
        body: { status: { secretAccessKey: 'x' } },
      }),
      await admin.text('GET', pathOf(key)),
    ]
    const { entries } = await lab.kv.list('/')
    for (const text of [...texts, entries.map(({ value }) => value).join()]) {
      expect(text).not.toContain(key.secretAccessKey)
      expect(text).not.toContain('secretAccessKey')
    }
    const sealed = entries.find(({ key: at }) => at.includes('access-key-secrets'))
    const { data } = JSON.parse(sealed?.value ?? '{}') as { data: string }
    expect(data.length).toBeGreaterThan(40)
    for (const text of texts) expect(text).not.toContain(data)
    expect(await letIn(key)).toBeDefined()
  })

  it.each([
    '/apis/plasmavmc.io/v1alpha1/access-key-secrets',
    '/apis/plasmavmc.io/v1alpha1/access-key-secrets/x',
    '/apis/plasmavmc.io/v1alpha1/accesskeys/..%2Faccess-key-secrets%2Fx',
    '/apis/plasmavmc.io/v1alpha1/namespaces/default/access-key-secrets',
  ])('has a secret that no path leads to: %s', async (path) => {
    await expect(lab.client().json('GET', path)).rejects.toMatchObject({ code: /NotFound|BadRequest/ })
  })

  it('is refused once it is disabled, and let in again', async () => {
    const key = await lab.key('onoff')
    const set = (disabled: boolean) =>
      lab.client().json('PATCH', pathOf(key), { ...merge, body: { spec: { disabled } } })
    await set(true)
    await until('it is refused', () =>
      letIn(key).then(
        () => false,
        (error: Error) => /InvalidClientTokenId/.test(error.message),
      ),
    )
    await set(false)
    await until('it is let in', () => letIn(key).then(() => true))
  })

  it('is refused when it has expired, with the word for it', async () => {
    const key = await lab.key('late', [], { expiresAt: '2020-01-01T00:00:00Z' })
    await expect(letIn(key)).rejects.toThrow(/ExpiredToken/)
  })

  it('is unknown once it is deleted, and so is its secret to the store', async () => {
    const key = await lab.key('gone')
    const before = (await lab.kv.list('/plasmavmc.io/access-key-secrets/')).entries.length
    await lab.client().json('DELETE', pathOf(key))
    expect((await lab.kv.list('/plasmavmc.io/access-key-secrets/')).entries.length).toBe(before - 1)
    await until('it is unknown', () =>
      letIn(key).then(
        () => false,
        (error: Error) => /SignatureDoesNotMatch: the access key is unknown, or/.test(error.message),
      ),
    )
  })

  it('keeps its secret as long as a finalizer holds it, and is refused meanwhile', async () => {
    const key = await lab.key('held')
    const finalizers = (list: readonly string[]) =>
      lab.client().json('PATCH', pathOf(key), { ...merge, body: { metadata: { finalizers: list } } })
    await finalizers(['example.com/hold'])
    const before = (await lab.kv.list('/plasmavmc.io/access-key-secrets/')).entries.length
    await lab.client().json('DELETE', pathOf(key))
    await until('it is refused', () =>
      letIn(key).then(
        () => false,
        () => true,
      ),
    )
    await finalizers([])
    expect((await lab.kv.list('/plasmavmc.io/access-key-secrets/')).entries.length).toBe(before - 1)
  })

  it('is not made by a dry run, nor from a bad one', async () => {
    const before = (await lab.kv.list('/')).revision
    const post = (body: object, dryRun?: string) =>
      lab.client().text('POST', keysPath, { body: { metadata: {}, ...body }, query: { dryRun } })
    expect(await post({ spec: { user: 'x' } }, 'All')).not.toContain('secretAccessKey')
    await expect(post({ spec: {} })).rejects.toThrow(/spec.user: Required/)
    await expect(post({ spec: { user: 'x', expiresAt: 'soon' } })).rejects.toThrow(/spec.expiresAt/)
    await expect(post({ metadata: { name: 'a.b' }, spec: { user: 'x' } })).rejects.toThrow(/metadata.name/)
    expect((await lab.kv.list('/')).revision).toBe(before)
  })

  it('tells when it was last used', async () => {
    const key = await lab.key('busy')
    await letIn(key)
    await until('it is noted', async () => {
      const { status } = await lab.client().json<{ status?: { lastUsed?: string } }>('GET', pathOf(key))
      return Math.abs(Date.parse(status?.lastUsed ?? '') - Date.now()) < 60_000
    })
  })
})

describe('the key file', () => {
  const file = () => join(lab.dataDir, 'secrets.key')
  const keyIds = async () => {
    const { entries } = await lab.kv.list('/plasmavmc.io/access-key-secrets/')
    return new Set(entries.map(({ value }) => (JSON.parse(value) as { keyId: string }).keyId))
  }

  it('is rotated while the server runs: all secrets come under the new key, and the old one can go', async () => {
    const key = await lab.key('rotated')
    const line = newKeyLine()
    writeFileSync(file(), line + readFileSync(file(), 'utf8'), { mode: 0o600 })
    const id = line.split(' ')[0] ?? ''
    await until('secrets are under the new key', async () => {
      expect(await letIn(key)).toBeDefined()
      const ids = await keyIds()
      return ids.size === 1 && ids.has(id)
    })
    writeFileSync(file(), line, { mode: 0o600 })
    const again = await IdentitiesLab.start({ kv: lab.kv, dataDir: lab.dataDir })
    expect(await again.client(key).json('POST', reviewPath, { body: {} })).toBeDefined()
    await again.close({ keep: true })
  })

  it('that is broken changes nothing', async () => {
    const before = readFileSync(file(), 'utf8')
    appendFileSync(file(), 'nonsense\n')
    const key = await lab.key('meanwhile')
    expect(await letIn(key)).toBeDefined()
    writeFileSync(file(), before, { mode: 0o600 })
  })

  it('is not made anew where the store has secrets already', async () => {
    const kv = new MemoryKv()
    const first = await IdentitiesLab.start({ kv })
    const key = await first.key('first')
    const warnings: string[] = []
    const log = {
      debug() {},
      info() {},
      warn: (text: string) => warnings.push(text),
      error() {},
      child: () => log,
    }
    const second = await IdentitiesLab.start({ kv, log })
    expect(warnings.join()).toMatch(/there is no secrets.key/)
    await expect(second.key('x')).rejects.toThrow(/copy secrets.key/)
    const secret = { secretAccessKey: key.secretAccessKey, accessKeyId: key.accessKeyId }
    await expect(second.client(secret).json('POST', reviewPath, { body: {} })).rejects.toThrow(
      /SignatureDoesNotMatch/,
    )
    writeFileSync(join(second.dataDir, 'secrets.key'), readFileSync(join(first.dataDir, 'secrets.key')), {
      mode: 0o600,
    })
    await until('the copy is taken', () =>
      second
        .client(secret)
        .json('POST', reviewPath, { body: {} })
        .then(() => true),
    )
    await first.close()
    await second.close()
  })
})

it('servers of one store know a key within a second, wherever it was made', async () => {
  const other = await IdentitiesLab.start({ kv: lab.kv, dataDir: lab.dataDir })
  const made = performance.now()
  const key = await lab.key('everywhere')
  const client = other.client(key)
  await until('it is let in', () => client.json('POST', reviewPath, { body: {} }).then(() => true), 1_000)
  expect(performance.now() - made).toBeLessThan(1_000)
  await other.close({ keep: true })
})

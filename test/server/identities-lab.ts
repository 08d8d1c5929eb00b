import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'vitest'
import type { AuditRecord } from '../../src/auth/audit.ts'
import { authenticate } from '../../src/auth/authenticate.ts'
import { ensureCredentials } from '../../src/auth/credentials.ts'
import { bootstrapIdentity } from '../../src/auth/identity.ts'
import type { Credentials } from '../../src/auth/sign.ts'
import { makeToken } from '../../src/auth/token.ts'
import { type Client, openClient } from '../../src/cli/client.ts'
import { type Clock, systemClock } from '../../src/lib/clock.ts'
import { type Log, silentLog } from '../../src/lib/log.ts'
import { kinds, Namespace, namespaceNamed } from '../../src/resources/kinds.ts'
import { ensurePki } from '../../src/server/pki.ts'
import { createServer } from '../../src/server/server.ts'
import type { Kv } from '../../src/store/kv.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { startIdentities } from '../../src/wire-identities.ts'
import { type Result, runCommand } from '../cli/fake-server.ts'

const run = promisify(execFile)
/** Another kubectl than the one on the PATH, to try a version. */
const program = process.env['KUBECTL'] ?? 'kubectl'
const deadlineMs = 60_000
const pollMs = 10

export const keysPath = '/apis/plasmavmc.io/v1alpha1/accesskeys'
export const rbacPath = '/apis/rbac.authorization.k8s.io/v1'
export const merge = { contentType: 'application/merge-patch+json' }

/** What a refusal for lack of rights is like, with these words in it. */
export const forbidden = (words: RegExp) => ({ code: 'Forbidden', message: expect.stringMatching(words) })
/** Of the AccessKey that somebody signs with. */
export const pathOf = ({ accessKeyId }: Credentials) => `${keysPath}/${accessKeyId.toLowerCase()}`

/** The real API with the identities of a store, on a real port with TLS. */
export class IdentitiesLab {
  readonly audits: AuditRecord[] = []
  readonly dataDir: string
  readonly kv: Kv
  readonly objects: KvObjects
  admin: Credentials = { accessKeyId: '', secretAccessKey: '' }
  address = ''
  readonly #stopping = new AbortController()
  readonly #clients: Client[] = []
  #close = async () => {}

  private constructor(dataDir: string, kv: Kv) {
    this.dataDir = dataDir
    this.kv = kv
    this.objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
  }

  static async start(options: { kv?: Kv; dataDir?: string; clock?: Clock; log?: Log } = {}) {
    const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'pvi-')))
    const lab = new IdentitiesLab(dataDir, options.kv ?? new MemoryKv())
    await lab.#serve(options.clock ?? systemClock, options.log ?? silentLog)
    return lab
  }

  async #serve(clock: Clock, log: Log): Promise<void> {
    const { dataDir, kv, objects } = this
    const { key, cert } = await ensurePki(join(dataDir, 'pki'), { names: [], now: Date.now() })
    this.admin = ensureCredentials(dataDir)
    const { accessKeyId, secretAccessKey: secret } = this.admin
    const admin = { secret, identity: { ...bootstrapIdentity, accessKeyId } }
    const options = { kv, objects, dataDir, clock, log }
    const identities = await startIdentities(options, this.#stopping.signal)
    const secretOf = (id: string) => (id === accessKeyId ? admin : identities.secretOf(id))
    const app = createServer({
      ...{ objects, kinds, clock, log, version: '0.1.0', ready: () => [], tls: { key, cert } },
      audit: (record) => this.audits.push(record),
      authenticate: (request) => {
        const scope = { region: 'local', service: 'plasmavmc' }
        const verdict = authenticate(request, { secretOf, now: clock.now(), ...scope })
        if (verdict.ok) identities.used(verdict.identity)
        return verdict
      },
      authorize: identities.authorize,
      rulesOf: identities.rulesOf,
      objectsFor: identities.objectsFor,
    })
    await objects.create(Namespace, namespaceNamed('default')).catch(() => {})
    await app.listen({ host: '127.0.0.1', port: 0 })
    this.address = `127.0.0.1:${(app.server.address() as AddressInfo).port}`
    this.#close = async () => {
      await app.close()
      this.#stopping.abort()
      await identities.ended
    }
  }

  /** A client that signs with these credentials; the admin's unless told. */
  client(credentials: Credentials = this.admin): Client {
    const port = Number(this.address.split(':')[1])
    const connection = { host: '127.0.0.1', port, dataDir: this.dataDir, flags: '' }
    const client = openClient(connection, systemClock, envOf(credentials))
    this.#clients.push(client)
    return client
  }

  /** Makes a key for a user. */
  async key(user: string, groups: readonly string[] = [], spec: object = {}): Promise<Credentials> {
    const body = { metadata: {}, spec: { user, groups, ...spec } }
    const made = await this.client().json<{ status: Credentials }>('POST', keysPath, { body })
    return made.status
  }

  /** One of our own command lines, as somebody. */
  cli(credentials: Credentials, ...argv: readonly string[]): Promise<Result> {
    const flags = ['--server', this.address, '--data-dir', this.dataDir]
    return runCommand([...flags, ...argv], { env: envOf(credentials) })
  }

  /** The real kubectl, as somebody. Rejects where it fails. */
  async kubectl(credentials: Credentials, ...args: readonly string[]): Promise<string> {
    const { token } = makeToken({ host: this.address, credentials, now: Date.now() })
    const ca = join(this.dataDir, 'pki', 'ca.crt')
    const { stdout, stderr } = await run(
      program,
      [
        ...['--kubeconfig', '/dev/null', '--cache-dir', join(this.dataDir, 'cache'), '--token', token],
        ...['--server', `https://${this.address}`, '--certificate-authority', ca, ...args],
      ],
      { timeout: deadlineMs },
    )
    return stdout + stderr
  }

  async close(options: { readonly keep?: boolean } = {}): Promise<void> {
    for (const client of this.#clients) client.close()
    await this.#close()
    if (!options.keep) await rm(this.dataDir, { recursive: true })
  }
}

function envOf({ accessKeyId, secretAccessKey }: Credentials) {
  return { PLASMAVMC_ACCESS_KEY_ID: accessKeyId, PLASMAVMC_SECRET_ACCESS_KEY: secretAccessKey }
}

/** Resolves once it holds; what it throws until then counts as not yet. */
export async function until(what: string, holds: () => unknown, withinMs = 10_000): Promise<void> {
  let last: unknown
  for (const end = performance.now() + withinMs; performance.now() < end; ) {
    try {
      if (await holds()) return
    } catch (error) {
      last = error
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
  throw new Error(`not within ${withinMs} ms: ${what}`, { cause: last })
}

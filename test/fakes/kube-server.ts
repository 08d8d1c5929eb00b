import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/lib/clock.ts'
import { type Log, silentLog } from '../../src/lib/log.ts'
import { Namespace, namespaceNamed } from '../../src/resources/kinds.ts'
import { ensurePki, type Pki } from '../../src/server/pki.ts'
import { openKubeAccess } from '../../src/store/kube-access.ts'
import { KubeHttp, type KubeHttpOptions } from '../../src/store/kube-http.ts'
import { KubeObjects, type KubeObjectsOptions } from '../../src/store/kube-objects.ts'
import { type Lab, lab } from '../server/fixture.ts'

const namespaces = ['a', 'b', 'c', 'a-b', 'plasmavmc-system']

export interface KubeServer extends Lab {
  readonly port: number
  readonly kubeconfig: string
  /** An ObjectStore of its own over HTTPS. */
  readonly open: (options?: OpenOptions) => KubeObjects
  readonly close: () => Promise<void>
}

export type OpenOptions = Partial<Omit<KubeObjectsOptions, 'http'>> &
  Partial<Pick<KubeHttpOptions, 'callMs' | 'log' | 'maxBytes'>>

/** The folder, and the certificates, of all servers of a test file. */
export class KubeServers {
  readonly dir = mkdtempSync(join(tmpdir(), 'plasmavmc-kube-'))
  readonly #open = new Set<KubeServer>()
  #pki: Promise<Pki> | undefined
  #count = 0

  get pki(): Promise<Pki> {
    this.#pki ??= ensurePki(join(this.dir, 'pki'), { names: [], now: systemClock.now() })
    return this.#pki
  }

  /** Our own server over a store in memory, over HTTPS, with a kubeconfig that lets its user do everything. */
  async start(options: Parameters<typeof lab>[0] & { readonly user?: object } = {}): Promise<KubeServer> {
    const { user = { token: 'admin' }, ...change } = options
    const { ca, cert, key } = await this.pki
    const own = await lab({ tls: { cert, key }, ...change })
    for (const name of namespaces) await own.objects.create(Namespace, namespaceNamed(name))
    await own.app.listen({ host: '127.0.0.1', port: 0 })
    const { port } = own.app.server.address() as AddressInfo
    this.#count += 1
    const kubeconfig = join(this.dir, `kubeconfig-${this.#count}`)
    writeKubeconfig(kubeconfig, { ca, server: `https://127.0.0.1:${port}`, user })
    const https: KubeHttp[] = []
    const server: KubeServer = {
      ...{ ...own, port, kubeconfig },
      open: (wanted = {}) => {
        const http = openHttp(kubeconfig, wanted)
        https.push(http)
        return new KubeObjects({ clock: systemClock, ...wanted, http })
      },
      close: async () => {
        for (const http of https) http.close()
        own.app.server.closeAllConnections()
        await own.app.close()
        this.#open.delete(server)
      },
    }
    this.#open.add(server)
    return server
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#open].map((server) => server.close()))
  }

  async end(): Promise<void> {
    await this.closeAll()
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export function openHttp(
  kubeconfig: string,
  options: { readonly log?: Log; readonly callMs?: number; readonly maxBytes?: number } = {},
): KubeHttp {
  return new KubeHttp({ access: openKubeAccess(kubeconfig), clock: systemClock, log: silentLog, ...options })
}

export function writeKubeconfig(
  file: string,
  { ca, server, user }: { readonly ca: string; readonly server: string; readonly user: object },
): void {
  const cluster = { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') }
  const config = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'x' },
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
  }
  writeFileSync(file, JSON.stringify(config))
}

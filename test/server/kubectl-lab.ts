import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { silentLog } from '../../src/lib/log.ts'
import { ensurePki } from '../../src/server/pki.ts'
import { runTidy } from '../../src/wire-tidy.ts'
import { type Lab, lab } from './fixture.ts'

const run = promisify(execFile)

/** Another kubectl than the one on the PATH, to try a version. */
const program = process.env['KUBECTL'] ?? 'kubectl'
const callMs = 60_000

export interface KubectlLab {
  readonly server: Lab
  /** All that one call of the real kubectl writes; rejects where it fails. */
  readonly kubectl: (...args: string[]) => Promise<string>
  /** The same with variables in its environment, and whatever its exit code. */
  readonly tried: (env: Record<string, string>, ...args: string[]) => Promise<string>
  /** Begins one that goes on until it is stopped. */
  readonly begin: (...args: string[]) => Following
  /** Writes a file for it. */
  readonly file: (name: string, text: string, mode?: number) => string
  readonly close: () => Promise<void>
}

export interface Following {
  /** Resolves with all that was written so far once `wanted` is in it. */
  readonly says: (wanted: RegExp) => Promise<string>
  readonly stop: () => Promise<void>
}

/** A server over TLS with all that tidies up behind deletions, and the real kubectl, which verifies it by our CA. */
export async function kubectlLab(): Promise<KubectlLab> {
  const dir = mkdtempSync(join(tmpdir(), 'pvk-'))
  const { key, cert } = await ensurePki(join(dir, 'pki'), { names: ['localhost'], now: Date.now() })
  const server = await lab({ tls: { key, cert } })
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  const stop = new AbortController()
  const tidy = runTidy({ kv: server.kv, objects: server.objects, log: silentLog }, stop.signal)
  const { port } = server.app.server.address() as AddressInfo
  const flags = [
    ...['--kubeconfig', '/dev/null', '--cache-dir', join(dir, 'cache'), '--token', 'admin'],
    ...['--server', `https://127.0.0.1:${port}`, '--certificate-authority', join(dir, 'pki', 'ca.crt')],
  ]
  const tried = async (env: Record<string, string>, ...args: string[]) => {
    const options = { timeout: callMs, env: { ...process.env, ...env } }
    const { stdout, stderr } = await run(program, [...flags, ...args], options).catch(
      (error: { stdout?: string; stderr?: string }) => ({
        stdout: error.stdout ?? '',
        stderr: error.stderr ?? '',
      }),
    )
    return stdout + stderr
  }
  return {
    ...{ server, tried },
    kubectl: async (...args) => {
      const { stdout, stderr } = await run(program, [...flags, ...args], { timeout: callMs })
      return stdout + stderr
    },
    begin: (...args) => follow(spawn(program, [...flags, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })),
    file: (name, text, mode = 0o600) => {
      const path = join(dir, name)
      writeFileSync(path, text)
      chmodSync(path, mode)
      return path
    },
    close: async () => {
      stop.abort()
      await tidy
      await server.app.close()
      rmSync(dir, { recursive: true })
    },
  }
}

function follow(child: ChildProcess): Following {
  let text = ''
  let look = () => {}
  const ended = once(child, 'close')
  child.stdout?.on('data', (chunk) => {
    text += chunk
    look()
  })
  return {
    says: (wanted) =>
      new Promise((resolve, reject) => {
        look = () => wanted.test(text) && resolve(text)
        look()
        void ended.then(() => reject(new Error(`ended without ${wanted}: ${text}`)))
      }),
    stop: async () => {
      child.kill()
      await ended
    },
  }
}

export function manifest(name: string, spec: object = {}, metadata: object = {}): string {
  return JSON.stringify({
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine' },
    metadata: { name, ...metadata },
    spec: { runStrategy: 'Halted', ...spec },
  })
}

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { resolve } from 'node:path'
import { type Client, openClient } from '../../../src/cli/client.ts'
import { apiPort, NamespaceHost } from '../../../src/drill/cluster/host.ts'
import { systemClock } from '../../../src/lib/clock.ts'

/** A host whose API is asked from outside of its network. */
export class Host extends NamespaceHost {
  #relay: ChildProcess | undefined
  #outerPort = 0
  #client: Client | undefined

  override async boot(): Promise<void> {
    await super.boot()
    this.#relay ??= await this.#openRelay()
  }

  override async powerOff(): Promise<void> {
    await super.powerOff()
    this.#client?.close()
    this.#client = undefined
  }

  async close(): Promise<void> {
    await this.powerOff()
    this.#relay?.kill('SIGKILL')
  }

  /** Whether the server says that it is ready. @throws where it does not answer, or says what is not */
  async isReady(): Promise<boolean> {
    await this.client.text('GET', '/readyz', { timeoutMs: 2_000 })
    return true
  }

  /** Reaches the API whatever becomes of the host's network. */
  get client(): Client {
    const connection = { host: '127.0.0.1', port: this.#outerPort, dataDir: this.dataDir, flags: '' }
    this.#client ??= openClient(connection, systemClock)
    return this.#client
  }

  async #openRelay(): Promise<ChildProcess> {
    const listener = createServer().listen(0, '127.0.0.1')
    await once(listener, 'listening')
    this.#outerPort = (listener.address() as { port: number }).port
    const node = [process.execPath, '--disable-warning=ExperimentalWarning']
    const argv = [...node, resolve('test/e2e/cluster/relay.ts'), String(apiPort)]
    const relay = spawn('nsenter', [`--net=/run/netns/${this.options.namespace}`, '--', ...argv], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    relay.send('listen', listener)
    await once(relay, 'message')
    listener.close()
    return relay
  }
}

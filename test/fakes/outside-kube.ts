import { systemClock } from '../../src/lib/clock.ts'
import type { KubeObject, ResourceDefinition } from '../../src/resources/define.ts'
import { Event, Lease, Namespace, namespaceNamed, StoragePool } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { isReason } from '../../src/store/errors.ts'
import type { KubeHttp } from '../../src/store/kube-http.ts'
import { KubeObjects } from '../../src/store/kube-objects.ts'
import type { Ref } from '../../src/store/objects.ts'
import { openHttp } from './kube-server.ts'

/** A namespace by which a cluster says that tests may empty it. */
const consent = 'plasmavmc-tests-may-empty-this-cluster'
const namespaces = ['a', 'b', 'c', 'a-b', 'plasmavmc-system']

/** An API server that others run, which a kubeconfig names: the contract is played against it, one test after the other. */
export class OutsideKube {
  readonly #http: KubeHttp
  readonly #objects: KubeObjects

  constructor(kubeconfig: string) {
    this.#http = openHttp(kubeconfig)
    this.#objects = new KubeObjects({ http: this.#http, clock: systemClock })
  }

  /**
   * The store, without any of our objects.
   * @throws Error where the cluster is not marked as one that may be emptied
   */
  async open(): Promise<KubeObjects> {
    const objects = this.#objects
    if (!(await this.#find(Namespace, { name: consent })))
      throw new Error(`these tests delete every machine and pool: kubectl create namespace ${consent}`)
    for (const name of namespaces)
      if (!(await this.#find(Namespace, { name }))) await objects.create(Namespace, namespaceNamed(name))
    for (const kind of [VirtualMachine, StoragePool]) await this.#empty(kind as ResourceDefinition)
    await this.#remove(Lease, { namespace: 'default', name: 'l' })
    await this.#remove(Event, { namespace: 'default', name: 'e' })
    await this.#remove(Namespace, { name: 'shop' })
    return objects
  }

  close(): void {
    this.#http.close()
  }

  async #empty(kind: ResourceDefinition): Promise<void> {
    for (const { metadata } of (await this.#objects.list(kind)).items) await this.#remove(kind, metadata)
  }

  /** With its finalizers, whose owners are tests that have ended. */
  async #remove<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<void> {
    const found = await this.#find(kind, ref)
    if (!found) return
    const objects = this.#objects
    if (found.metadata.finalizers?.length)
      await objects.update(kind, { ...found, metadata: { ...found.metadata, finalizers: [] } })
    if (!(await this.#find(kind, ref))) return
    const marked = await objects.delete(kind, ref)
    if (kind.finalized && (await this.#find(kind, ref)))
      await objects.update(kind, { ...marked, spec: { finalizers: [] } }, { finalize: true })
  }

  #find<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T | undefined> {
    return this.#objects.get(kind, ref).catch((error: unknown) => {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    })
  }
}

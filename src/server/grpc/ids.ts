import type { KubeObject } from '../../resources/define.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import { ApiError, isReason } from '../../store/errors.ts'
import type { Ref, TextStore } from '../../store/objects.ts'

/** A namespace and a name: what every machine has. */
export type VmRef = Required<Ref>

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const place = /^([a-z0-9][-a-z0-9]*)\/([a-z0-9][-a-z0-9.]*)$/

/** Uids whose names are remembered; the oldest is forgotten first. */
const maxKnown = 20_000

/**
 * Finds machines by what clients of gRPC name them by. Objects lie under their names, so a uid that is not known yet
 * costs a look through all machines; lookups that wait at the same time share one.
 */
export class VmIds {
  readonly #objects: TextStore
  readonly #known = new Map<string, VmRef>()
  #waiting = new Map<string, PromiseWithResolvers<VmRef | undefined>>()
  #scanning = false

  constructor(objects: TextStore) {
    this.#objects = objects
  }

  /** Remembers where a machine is, so that it need not be looked for. */
  note({ metadata }: KubeObject): void {
    const { uid, name, namespace } = metadata
    if (uid === undefined || namespace === undefined) return
    this.#known.delete(uid)
    this.#known.set(uid, { namespace, name })
    const [oldest] = this.#known.keys()
    if (this.#known.size > maxKnown && oldest !== undefined) this.#known.delete(oldest)
  }

  /**
   * Where the machine is that a request names, and its uid where that is what was given; nothing where no machine has
   * that uid. @throws ApiError BadRequest for what is neither a uid nor a namespace and a name
   */
  async find(id: string): Promise<{ readonly ref: VmRef; readonly uid?: string } | undefined> {
    const [, namespace, name] = place.exec(id) ?? []
    if (namespace !== undefined && name !== undefined) return { ref: { namespace, name } }
    if (!uuid.test(id)) {
      const hint = 'the id of a machine, or namespace/name such as default/web'
      throw new ApiError('BadRequest', `id: Invalid value: ${JSON.stringify(id.slice(0, 100))}`, {}, { hint })
    }
    const ref = (await this.#isStill(id)) ?? (await this.#lookFor(id))
    return ref && { ref, uid: id }
  }

  /** What is known of a uid, where it still holds: a name may be another machine's by now. */
  async #isStill(uid: string): Promise<VmRef | undefined> {
    const ref = this.#known.get(uid)
    if (!ref) return undefined
    try {
      const { metadata } = await this.#objects.get(VirtualMachine, ref)
      if (metadata.uid === uid) return ref
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error
    }
    this.#known.delete(uid)
    return undefined
  }

  /** Joins the next look, never one under way: that one may have passed the machine's place before it was made. */
  #lookFor(uid: string): Promise<VmRef | undefined> {
    const waiting = this.#waiting.get(uid) ?? Promise.withResolvers<VmRef | undefined>()
    this.#waiting.set(uid, waiting)
    if (!this.#scanning) void this.#scanAll()
    return waiting.promise
  }

  async #scanAll(): Promise<void> {
    this.#scanning = true
    while (this.#waiting.size > 0) {
      const wanted = this.#waiting
      this.#waiting = new Map()
      try {
        await this.#scan(wanted)
        for (const { resolve } of wanted.values()) resolve(undefined)
      } catch (error) {
        for (const { reject } of wanted.values()) reject(error)
      }
    }
    this.#scanning = false
  }

  async #scan(wanted: ReadonlyMap<string, PromiseWithResolvers<VmRef | undefined>>): Promise<void> {
    const { items } = await this.#objects.listText(VirtualMachine)
    for (const text of items) this.#take(text, wanted)
  }

  #take(text: string, wanted: ReadonlyMap<string, PromiseWithResolvers<VmRef | undefined>>): void {
    // Every uid of a text, its owners' too: cheaper than to parse it.
    for (const [, uid = ''] of text.matchAll(/"uid":"([0-9a-f-]{36})"/g)) {
      const found = wanted.get(uid)
      if (!found) continue
      const object = JSON.parse(text) as KubeObject
      if (object.metadata.uid !== uid) continue
      this.note(object)
      found.resolve(this.#known.get(uid))
    }
  }
}

import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { withDefaults } from '../resources/parse.ts'
import type { KvEntry, KvEvent } from './kv.ts'
import { stored } from './object-text.ts'
import type { Rendered } from './rendered.ts'

export type Test = (object: KubeObject) => boolean

/** What the entries of a Kv say. Nobody changes what it gives. */
export interface EntryReader {
  /** An object as it is stored, without defaults, with its resourceVersion. */
  stored<T extends KubeObject>(entry: KvEntry): T
  /**
   * The same as readers see it.
   * @param known what the entry's text says, where the caller has it already
   */
  shown<T extends KubeObject>(kind: ResourceDefinition<T>, entry: KvEntry, known?: T): T
}

/** Reads anew each time. */
export const entryReader: EntryReader = {
  stored,
  shown: (kind, entry, known) => withDefaults(kind, known ?? stored(entry)),
}

/** An event as watchers see it, worked out once for all of them, and no more of it than they ask for. */
export class ShownEvent {
  readonly #kind: ResourceDefinition
  readonly #event: KvEvent
  readonly #rendered: Rendered
  readonly #reader: EntryReader
  #before: KubeObject | undefined
  #after: KubeObject | undefined
  #beforeText: string | undefined

  constructor(
    kind: ResourceDefinition,
    event: KvEvent,
    rendered: Rendered,
    reader: EntryReader = entryReader,
  ) {
    this.#kind = kind
    this.#event = event
    this.#rendered = rendered
    this.#reader = reader
  }

  /** As it was, with the revision of this event. */
  before(): KubeObject | undefined {
    const { previous, revision } = this.#event
    if (!previous) return undefined
    this.#before ??= withDefaults(this.#kind, stored({ value: previous.value, revision }))
    return this.#before
  }

  /** As it is now; undefined where it was deleted. */
  after(): KubeObject | undefined {
    if (this.#event.type === 'delete') return undefined
    this.#after ??= this.#reader.shown(this.#kind, this.#event)
    return this.#after
  }

  /**
   * What happened, to whoever watches only what passes `test`: what comes to pass is added, what no longer passes is
   * deleted. Undefined where it is none of theirs.
   */
  typeFor(test: Test | undefined): 'ADDED' | 'MODIFIED' | 'DELETED' | undefined {
    const passes = (object: KubeObject | undefined) => object !== undefined && (!test || test(object))
    const was = test ? passes(this.before()) : this.#event.previous !== undefined
    const is = test ? passes(this.after()) : this.#event.type === 'put'
    if (!was && !is) return undefined
    return is ? (was ? 'MODIFIED' : 'ADDED') : 'DELETED'
  }

  /** What is shown with that: an object that is gone, or no longer selected, as it last was. */
  objectFor(type: 'ADDED' | 'MODIFIED' | 'DELETED'): KubeObject {
    return (type === 'DELETED' ? this.before() : this.after()) as KubeObject
  }

  textFor(type: 'ADDED' | 'MODIFIED' | 'DELETED'): string {
    if (type !== 'DELETED' && this.#event.type === 'put')
      return this.#rendered.textOf(this.#kind, this.#event)
    this.#beforeText ??= JSON.stringify(this.before())
    return this.#beforeText
  }
}

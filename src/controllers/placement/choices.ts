import type { VirtualMachine } from '../../resources/vm.ts'
import { crowdOf } from './crowd.ts'
import { crowdRefusal, type Demand, hostRefusal, type Needs, type Refusal, shareRefusal } from './fit.ts'
import type { Residents } from './residents.ts'
import { type Room, withMachine } from './room.ts'
import { score } from './score.ts'
import { summaryOf } from './summary.ts'

/** What hosts say to a demand, by the index of the room. */
interface Answer {
  readonly refusals: readonly (Refusal | undefined)[]
  /** The rooms whose hosts as such would do. */
  readonly open: readonly Room[]
  /** Why none takes it, where none does. */
  readonly message: string | undefined
}

/** Demands are few where machines are many; where they are not, knowing all answers would take more than it saves. */
const mostKept = 1_000

/** What is so until it is forgotten. */
class Kept<T> {
  readonly #values = new Map<string, T>()

  of(key: string, work: () => T): T {
    const known = this.#values.get(key)
    if (known !== undefined) return known
    const value = work()
    if (this.#values.size >= mostKept) this.#values.clear()
    this.#values.set(key, value)
    return value
  }

  clear(): void {
    this.#values.clear()
  }
}

/**
 * Chooses hosts for one machine after another. As long as none is placed, machines that ask the same get the same
 * answer: thousands that no host takes cost little more than one.
 */
export class Choices {
  readonly #rooms: Room[]
  readonly #residentsOf: () => Residents
  #residents: Residents | undefined
  readonly #answers = new Kept<Answer>()
  readonly #choices = new Kept<Room | string>()

  /**
   * @param rooms in the order of names: of equals the first wins
   * @param residents those who are in the rooms; asked once, where it matters who they are
   */
  constructor(rooms: readonly Room[], residents: () => Residents) {
    this.#rooms = [...rooms]
    this.#residentsOf = residents
  }

  /** The best room, or why there is none. */
  of(needs: Needs): Room | string {
    const demand = JSON.stringify(needs.demand)
    const answer = this.#answers.of(demand, () => this.#answer(needs.demand))
    if (answer.message !== undefined) return answer.message
    const { metadata, spec } = needs.vm
    // All that a choice depends on besides: see `crowdOf`.
    const about = [demand, metadata.namespace, metadata.labels, spec.affinity, spec.spread]
    return this.#choices.of(JSON.stringify(about), () => this.#choose(needs, answer))
  }

  /** A machine is in this room from now on. */
  take(room: Room, vm: VirtualMachine): void {
    this.#rooms[this.#rooms.indexOf(room)] = withMachine(room, vm)
    this.#there().add(vm, room.name)
    this.#answers.clear()
    this.#choices.clear()
  }

  #there(): Residents {
    this.#residents ??= this.#residentsOf()
    return this.#residents
  }

  #answer(demand: Demand): Answer {
    const closed = this.#rooms.map((room) => hostRefusal(demand, room))
    const refusals = this.#rooms.map((room, index) => closed[index] ?? shareRefusal(demand, room))
    return {
      refusals,
      open: this.#rooms.filter((_room, index) => !closed[index]),
      message: refusals.every((why) => why !== undefined) ? this.#summary(refusals) : undefined,
    }
  }

  #choose(needs: Needs, { refusals, open }: Answer): Room | string {
    const rooms = this.#rooms
    const crowd = crowdOf(needs.vm, this.#there(), rooms, open)
    const all = rooms.map((room, index) => refusals[index] ?? crowdRefusal(needs, room, crowd))
    let best: Room | undefined
    let most = Number.NEGATIVE_INFINITY
    for (const [index, room] of rooms.entries()) {
      if (all[index]) continue
      const points = score(needs, room, crowd)
      if (points > most) [best, most] = [room, points]
    }
    return best ?? this.#summary(all)
  }

  #summary(refusals: readonly (Refusal | undefined)[]): string {
    const said = refusals.flatMap((why, index) =>
      why ? [[this.#rooms[index]?.name ?? '', why] as const] : [],
    )
    return summaryOf(new Map(said))
  }
}

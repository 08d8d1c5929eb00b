import { Etcd3 } from 'etcd3'
import { type EtcdKv, openEtcd } from '../src/store/etcd.ts'
import { EtcdLab } from '../test/fakes/etcd-server.ts'
import { tiny } from './lab.ts'
import { type Figure, median, ms, percentile, repeat } from './stats.ts'

/** As large as a machine. */
const value = JSON.stringify(tiny('bench'))
const rounds = 5
const wide = 64

/** Runs `count` of them, `width` at a time. @returns how many a second */
async function rate(count: number, width: number, one: (index: number) => Promise<unknown>): Promise<number> {
  const began = performance.now()
  let next = 0
  const runner = async () => {
    while (next < count) await one(next++)
  }
  await Promise.all(Array.from({ length: width }, runner))
  return (count * 1000) / (performance.now() - began)
}

/** Rates of two, in turn, so that both meet the same machine. @returns ours, theirs: medians */
async function compared(
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
): Promise<readonly [number, number]> {
  const both: [number[], number[]] = [[], []]
  for (let round = 0; round < rounds; round += 1) {
    both[0].push(await ours())
    both[1].push(await theirs())
  }
  return [median(both[0]), median(both[1])]
}

const against = ([ours, theirs]: readonly [number, number]) =>
  `${(ours / theirs).toFixed(2)} × (${Math.round(ours)} / ${Math.round(theirs)})`

/** Milliseconds from the beginning of a write until a watch shows it. */
async function delays(kv: EtcdKv, count: number): Promise<number[]> {
  const stop = new AbortController()
  const { revision } = await kv.list('/w/')
  const watch = kv.watch('/w/', revision, stop.signal)[Symbol.asyncIterator]()
  const all = await repeat(count + 1, async (index) => {
    const began = performance.now()
    const next = watch.next()
    await kv.put(`/w/${index}`, value, 0n)
    await next
    return performance.now() - began
  })
  stop.abort()
  await watch.next()
  // The first one waits for the watch itself.
  return all.slice(1)
}

/** The store over etcd against the client it stands on, in the same etcd on the same disk. */
export async function etcd(): Promise<Figure[]> {
  const lab = await EtcdLab.start({ onDisk: true })
  const kv = await openEtcd({ endpoints: lab.endpoints })
  const raw = new Etcd3({ hosts: lab.endpoints })
  try {
    let made = 0
    const ours = () => kv.put(`/a/${made++}`, value, 0n)
    const theirs = () => {
      const key = `/raw/${made++}`
      return raw.if(key, 'Mod', '==', 0).then(raw.put(key).value(value)).commit()
    }
    await rate(200, 8, ours)
    await rate(200, 8, theirs)
    const single = await compared(
      () => rate(200, 1, ours),
      () => rate(200, 1, theirs),
    )
    const many = await compared(
      () => rate(2_000, wide, ours),
      () => rate(2_000, wide, theirs),
    )
    const lists = await compared(
      () => rate(3, 1, () => kv.list('/a/')),
      () => rate(3, 1, () => raw.getAll().prefix('/raw/').strings()),
    )
    const seen = await delays(kv, 300)
    const goal = '≥ 0.8 ×'
    return [
      { what: 'etcd: creates/s, 1 in flight, against etcd3 alone', value: against(single), goal },
      { what: `etcd: creates/s, ${wide} in flight, against etcd3 alone`, value: against(many), goal },
      { what: 'etcd: lists/s of 11,000 objects, against etcd3 alone', value: against(lists), goal },
      {
        what: 'etcd: write → watch event, against a write alone',
        value: `p50 ${ms(median(seen))}, p99 ${ms(percentile(seen, 0.99))} (${ms(1000 / single[0])})`,
        goal: 'p50 ≤ 2 ×',
      },
    ]
  } finally {
    raw.close()
    await kv.close()
    await lab.close()
  }
}

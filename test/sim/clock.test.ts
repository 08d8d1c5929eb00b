import { describe, expect, test } from 'vitest'
import { sleep } from '../../src/lib/clock.ts'
import { SimProcess, Timeline } from '../../src/sim/clock.ts'
import { Random } from '../../src/sim/random.ts'

const time = () => ({ rate: 1, epoch: 0, bootedAt: 0 })

async function all(timeline: Timeline, until: number): Promise<void> {
  while (await timeline.step(until));
}

describe('the time of a world', () => {
  test('events run in order of time, and those of one time in the order in which they were set', async () => {
    const timeline = new Timeline()
    const ran: string[] = []
    const random = new Random(1)
    const times = Array.from({ length: 200 }, () => random.int(20))
    for (const [i, at] of times.entries()) timeline.at(at, () => ran.push(`${at}/${i}`))
    await all(timeline, 100)
    const sorted = [...times.entries()]
      .sort(([i, a], [j, b]) => a - b || i - j)
      .map(([i, at]) => `${at}/${i}`)
    expect(ran).toEqual(sorted)
    expect(timeline.now).toBe(100)
  })

  test('what was cancelled does not run', async () => {
    const timeline = new Timeline()
    const ran: string[] = []
    const cancel = timeline.at(5, () => ran.push('cancelled'))
    timeline.at(3, cancel)
    timeline.at(7, () => ran.push('kept'))
    await all(timeline, 10)
    expect(ran).toEqual(['kept'])
  })

  test('everything that an event sets going without waiting comes to rest before the next', async () => {
    const timeline = new Timeline()
    const ran: string[] = []
    timeline.at(1, () => {
      void (async () => {
        for (let i = 0; i < 1_000; i += 1) await null
        ran.push('rest of the first')
      })()
    })
    timeline.at(1, () => ran.push('second'))
    await all(timeline, 1)
    expect(ran).toEqual(['rest of the first', 'second'])
  })
})

describe('a process of a world', () => {
  test('sleeps by its own clock, which runs at its own rate', async () => {
    const timeline = new Timeline()
    const process = new SimProcess('one', timeline, { rate: 2, epoch: 1_000, bootedAt: 0 })
    let woke = 0
    void sleep(process.clock, 100).then(() => {
      woke = timeline.now
    })
    const began = process.clock.elapsed()
    await all(timeline, 200)
    expect(woke).toBe(50)
    expect(process.clock.elapsed() - began).toBe(400)
    expect(process.clock.now()).toBe(1_200)
  })

  test('gets nothing while it is stopped, and everything in its order when it goes on', async () => {
    const timeline = new Timeline()
    const process = new SimProcess('one', timeline, time())
    const ran: string[] = []
    process.clock.after(10, () => ran.push(`first at ${timeline.now}`))
    process.clock.after(20, () => ran.push(`second at ${timeline.now}`))
    timeline.at(5, () => process.stop('a'))
    timeline.at(6, () => process.stop('b'))
    timeline.at(30, () => process.cont('a'))
    timeline.at(40, () => process.cont('b'))
    await all(timeline, 100)
    expect(ran).toEqual(['first at 40', 'second at 40'])
  })

  test('runs no more once it is dead', async () => {
    const timeline = new Timeline()
    const process = new SimProcess('one', timeline, time())
    const ran: string[] = []
    process.clock.after(10, () => ran.push('late'))
    void (async () => {
      await sleep(process.clock, 20)
      ran.push('later')
    })()
    timeline.at(5, () => process.kill())
    await all(timeline, 100)
    expect(ran).toEqual([])
  })
})

test('the same seed gives the same numbers, and a fork does not move its source', () => {
  const [a, b] = [new Random(7), new Random(7)]
  a.fork('x').next()
  expect([a.next(), a.int(100), a.uuid()]).toEqual([b.next(), b.int(100), b.uuid()])
  expect(a.fork('x').next()).not.toBe(a.fork('y').next())
  expect(a.uuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/)
})

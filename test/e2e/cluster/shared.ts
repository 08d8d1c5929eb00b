import { afterAll, beforeAll, describe } from 'vitest'
import { Cluster, type ClusterOptions } from './lab.ts'

/**
 * The lab of the test file that runs. Three hosts and their etcd take longer to start than many a scenario takes, so
 * the scenarios of a file share one: each set of them lies in a module of its own and leaves the lab as it found it.
 */
export let cluster: Cluster

/** Has the scenarios of this file take place in one lab. */
export function shareLab(options: ClusterOptions = {}): void {
  beforeAll(async () => {
    cluster = await Cluster.start(options)
    await cluster.watched()
  })
  afterAll(() => cluster?.close())
}

/** A set of scenarios, whose modules register them; afterwards the lab is cleared. */
export function scenarios(what: string, load: () => Promise<unknown>): void {
  describe(what, async () => {
    afterAll(() => cluster.clear())
    await load()
  })
}

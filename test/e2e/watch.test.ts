import { afterAll, beforeAll, expect, test } from 'vitest'
import type { WatchFrame } from '../../src/cli/client.ts'
import type { KubeObject } from '../../src/resources/define.ts'
import { Lab, machinesPath } from './lab.ts'

const configMaps = '/api/v1/namespaces/default/configmaps'

let lab: Lab
beforeAll(async () => {
  // No machine is needed: what is watched goes through all that lies between a real store and a client.
  lab = await Lab.start({ flags: ['--roles', 'api,controller'] })
})
afterAll(() => lab.close())

const configMap = (name: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name } })

/** A watch of machines, once it is open, and all that it tells until the server ends it. */
async function watching(query: Record<string, string>) {
  const open = Promise.withResolvers<void>()
  const told = (async () => {
    const frames: WatchFrame<KubeObject>[] = []
    const options = { query: { allowWatchBookmarks: 'true', ...query }, onOpen: open.resolve }
    for await (const frame of lab.client.watch<KubeObject>(machinesPath, options)) frames.push(frame)
    return frames
  })()
  await Promise.race([open.promise, told])
  return { told }
}

test('an idle watch says how far it is before its time is over, and one from there ends in order with the server', {
  timeout: 60_000,
}, async () => {
  const idle = await watching({ timeoutSeconds: '4' })
  const made = await lab.client.json<KubeObject>('POST', configMaps, { body: configMap('elsewhere') })
  const frames = await idle.told
  expect(frames.map(({ type }) => type)).toEqual(['BOOKMARK'])
  const resourceVersion = frames[0]?.object.metadata.resourceVersion ?? ''
  expect(Number(resourceVersion)).toBeGreaterThanOrEqual(Number(made.metadata.resourceVersion))
  const body = { metadata: { name: 'last' }, spec: { runStrategy: 'Halted' } }
  const next = await watching({ resourceVersion })
  const { metadata } = await lab.client.json<KubeObject>('POST', machinesPath, { body })
  await lab.end('SIGTERM')
  expect((await next.told)[0]).toMatchObject({ type: 'ADDED', object: { metadata: { name: metadata.name } } })
})

import { expect, test } from 'vitest'
import { clusterKey, clusterKeyPlace } from '../../src/store/cluster-key.ts'
import { MemoryKv } from '../../src/store/memory.ts'

test('whoever comes first makes the key, all others get the same', async () => {
  const kv = new MemoryKv()
  const keys = await Promise.all(Array.from({ length: 8 }, () => clusterKey(kv)))
  expect(new Set(keys.map((key) => key.toString('hex'))).size).toBe(1)
  expect(keys[0]).toHaveLength(32)
  expect((await clusterKey(kv)).equals(keys[0]!)).toBe(true)
  expect((await clusterKey(new MemoryKv())).equals(keys[0]!)).toBe(false)
})

test('what is no key is refused', async () => {
  const kv = new MemoryKv()
  await kv.put(clusterKeyPlace, 'short', 0n)
  await expect(clusterKey(kv)).rejects.toThrow('holds no key of 32 bytes')
})

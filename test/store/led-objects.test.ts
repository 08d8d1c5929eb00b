import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { StoragePool } from '../../src/resources/kinds.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { LedObjects } from '../../src/store/led-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { pool } from '../contract/objects.ts'

it('writes in its term only, and only to versions that were read', async () => {
  const objects = new KvObjects(new MemoryKv(), { clock: systemClock, newUid: randomUUID })
  const term = new AbortController()
  const led = new LedObjects(objects, 3, term.signal)
  const made = await led.create(StoragePool, pool('a'))
  const unread = { ...made, metadata: { name: 'a' } }
  await expect(led.update(StoragePool, unread)).rejects.toMatchObject({ reason: 'BadRequest' })
  await expect(led.updateStatus(StoragePool, unread)).rejects.toMatchObject({ reason: 'BadRequest' })
  const status = { conditions: [], available: '1' }
  const written = await led.updateStatus(StoragePool, { ...made, status })
  await expect(led.updateStatus(StoragePool, { ...made, status })).rejects.toMatchObject({
    reason: 'Conflict',
  })
  term.abort()
  const over = {
    reason: 'ServiceUnavailable',
    message: expect.stringContaining('epoch 3; its term has ended'),
  }
  await expect(led.create(StoragePool, pool('b'))).rejects.toMatchObject(over)
  await expect(led.update(StoragePool, written)).rejects.toMatchObject(over)
  await expect(led.updateStatus(StoragePool, written)).rejects.toMatchObject(over)
  await expect(led.delete(StoragePool, { name: 'a' })).rejects.toMatchObject(over)
  expect(await led.get(StoragePool, { name: 'a' })).toEqual(written)
  expect((await led.list(StoragePool)).items).toEqual([written])
})

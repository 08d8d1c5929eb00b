import { expect, test } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { Prometheus } from '../../src/server/prometheus.ts'
import { ApiError } from '../../src/store/errors.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { meteredKv } from '../../src/store/metered.ts'
import { kvContract } from '../contract/kv.ts'

kvContract('memory, measured', {
  open: async ({ limit, bytes } = {}) => {
    const kept = {
      ...(limit !== undefined && { historyLimit: limit }),
      ...(bytes !== undefined && { historyBytes: bytes }),
    }
    return meteredKv(new MemoryKv(kept), new Prometheus(), systemClock)
  },
  tells: true,
})

test('operations are timed, and failures counted by their reason; errors pass as they are', async () => {
  const meter = new Prometheus()
  const inner = new MemoryKv()
  const failure = new ApiError('ServiceUnavailable', 'away')
  inner.get = () => Promise.reject(failure)
  const kv = meteredKv(inner, meter, systemClock)
  await expect(kv.get('/a')).rejects.toBe(failure)
  expect(await kv.put('/a', 'x', 0n)).toBe(1n)
  expect(await kv.put('/a', 'y', 0n)).toBeUndefined()
  const text = await meter.text()
  const count = (operation: string) =>
    new RegExp(
      `^plasmavmc_store_operation_duration_seconds_count\\{operation="${operation}"\\} (\\d+)$`,
      'm',
    ).exec(text)?.[1]
  expect([count('get'), count('put'), count('list')]).toEqual(['1', '2', undefined])
  expect(text).toContain(
    'plasmavmc_store_operation_errors_total{operation="get",reason="ServiceUnavailable"} 1\n',
  )
})

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { guardLog, spawnGuard } from '../../src/host/guard-process.ts'

test('a guard knows of its store what its server knows: where a pod finds the API server', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'pv-'))
  vi.stubEnv('KUBERNETES_SERVICE_HOST', '192.0.2.1')
  onTestFinished(() => {
    vi.unstubAllEnvs()
    rmSync(dir, { recursive: true })
  })
  const { ended } = await spawnGuard(dir, ['env'])
  expect(await ended).toMatch(/^exit code 0: /)
  expect(readFileSync(guardLog(dir), 'utf8')).toContain('KUBERNETES_SERVICE_HOST=192.0.2.1\n')
})

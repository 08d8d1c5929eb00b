import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openWatchdog } from '../../src/host/guard-watchdog.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pvw-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

test('is petted, and told to stop with the letter that Linux knows', () => {
  const device = join(dir, 'watchdog')
  writeFileSync(device, '')
  const watchdog = openWatchdog(device)
  watchdog.pet()
  watchdog.pet()
  watchdog.close()
  expect(readFileSync(device, 'utf8')).toBe('..V')
  expect(watchdog.timeoutMs).toBe(60_000)
})

test('one that is not there is no file that is made', () => {
  const device = join(dir, 'none')
  expect(() => openWatchdog(device)).toThrow(/--watchdog-device: .*none can't be opened/)
  expect(() => readFileSync(device)).toThrow(/ENOENT/)
})

test('a device that does not say when it bites is refused', () => {
  expect(() => openWatchdog('/dev/null', dir)).toThrow(/does not say when it bites: .*null\/timeout/)
})

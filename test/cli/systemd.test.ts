import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const unit = readFileSync('deploy/systemd/plasmavmc.service', 'utf8')
const settings = new Map(
  unit
    .split('\n')
    .filter((line) => /^[A-Z]\w*=/.test(line))
    .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
)

test('a stop of the unit leaves machines and their sockets alone', () => {
  expect(settings.get('KillMode')).toBe('process')
  expect(settings.get('RuntimeDirectory')).toBe('plasmavmc')
  expect(settings.get('RuntimeDirectoryPreserve')).toBe('yes')
  expect(settings.get('OOMPolicy')).toBe('continue')
})

test('a start is over when the server says so, however long its store takes', () => {
  expect(settings.get('Type')).toBe('notify')
  expect(settings.get('NotifyAccess')).toBe('all')
  expect(settings.get('TimeoutStartSec')).toBe('infinity')
})

test.each([
  // Any DeviceAllow, which ProtectClock implies, takes /dev/kvm and /dev/net/tun away.
  ...['DeviceAllow', 'DevicePolicy', 'PrivateDevices', 'ProtectClock'],
  // Machines are found by a scan of all of /proc; one that misses some may start a second QEMU.
  ...['ProtectProc', 'ProcSubset', 'PrivatePIDs'],
  ...['MemoryDenyWriteExecute', 'PrivateNetwork', 'ProtectControlGroups', 'SystemCallFilter', 'User'],
])('%s, which QEMU or the server can’t work under, is not set', (name) => {
  expect(settings.has(name)).toBe(false)
})

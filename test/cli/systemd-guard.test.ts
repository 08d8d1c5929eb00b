import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const text = readFileSync('deploy/systemd/plasmavmc-guard.service', 'utf8')
const settings = new Map(
  text
    .split('\n')
    .filter((line) => /^[A-Z]\w*=/.test(line))
    .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
)

test('the guard is kept running, apart from the server, and spared when memory is short', () => {
  expect(settings.get('Restart')).toBe('always')
  expect(settings.get('StartLimitIntervalSec')).toBe('0')
  expect(Number(settings.get('OOMScoreAdjust'))).toBeLessThan(0)
  expect(settings.get('RuntimeDirectoryPreserve')).toBe('yes')
})

test.each(['PartOf', 'BindsTo', 'Requires', 'StopPropagatedFrom'])(
  'no %s ties it to the server: it is not stopped with it',
  (name) => expect(settings.has(name)).toBe(false),
)

test.each([
  'ProtectProc',
  'ProcSubset',
  'PrivatePIDs',
  'PrivateUsers',
  'PrivateDevices',
  'DevicePolicy',
  'User',
])('%s, under which it could not see or stop machines or pet the watchdog, is not set', (name) =>
  expect(settings.has(name)).toBe(false),
)

test('it may do what telling others its address takes: getifaddrs(3) asks over a netlink socket', () =>
  expect(settings.get('RestrictAddressFamilies')?.split(' ').sort()).toEqual([
    ...['AF_INET', 'AF_INET6', 'AF_NETLINK', 'AF_UNIX'],
  ]))

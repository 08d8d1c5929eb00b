import type { NetworkInterfaceInfo } from 'node:os'
import { expect, test } from 'vitest'
import { HostAddresses } from '../../src/host/addresses.ts'
import { GuardPeer } from '../../src/host/guard-peer.ts'
import { type Log, silentLog } from '../../src/lib/log.ts'

const everywhere = { host: '0.0.0.0', port: 7444 }
const member = (host: string) => ({ host, port: 2379 })

function face(address: string): NetworkInterfaceInfo {
  const family = address.includes(':') ? ('IPv6' as const) : ('IPv4' as const)
  const internal = address === '::1' || address.startsWith('127.')
  return { address, family, internal, netmask: '', mac: '', cidr: null, scopeid: 0 } as NetworkInterfaceInfo
}

interface Case {
  readonly own: readonly string[]
  /** By member of the store, our address on the way there. */
  readonly ways: Readonly<Record<string, string | undefined>>
  readonly listen?: { readonly host: string; readonly port: number }
  readonly said?: { readonly host: string; readonly port: number }
}

function lab({ own, ways, listen = everywhere, said }: Case) {
  const warnings: string[] = []
  const log: Log = {
    ...silentLog,
    warn: (message, fields) => void warnings.push(`${message}; ${fields?.['hint']}`),
  }
  const interfaces = { lo: [face('127.0.0.1'), face('::1')], eth0: own.map(face) }
  const store = Object.keys(ways).map(member)
  const addresses = new HostAddresses(
    store,
    () => interfaces,
    async (host) => ways[host],
  )
  const peer = new GuardPeer({ said, listen, addresses, log })
  return { peer, warnings, interfaces }
}

test('a first member of the store on loopback does not hide the way to the second', async () => {
  const own = ['192.0.2.7', '198.51.100.7']
  const ways = { '127.0.0.1': '127.0.0.1', 'gone.example': undefined, '198.51.100.9': '198.51.100.7' }
  expect(await lab({ own, ways }).peer.find()).toBe('198.51.100.7:7444')
})

test('where the store is on this host alone, others are told an address that they reach', async () => {
  const { peer, warnings } = lab({ own: ['192.0.2.7'], ways: { '127.0.0.1': '127.0.0.1' } })
  expect(await peer.find()).toBe('192.0.2.7:7444')
  expect(warnings).toEqual([])
})

test('no address is told that the guard does not hear', async () => {
  const of = { own: ['2001:db8::7', '192.0.2.7'], ways: { '2001:db8::9': '2001:db8::7' } }
  expect(await lab(of).peer.find()).toBe('192.0.2.7:7444')
  expect(await lab({ ...of, listen: { host: '::', port: 7444 } }).peer.find()).toBe('[2001:db8::7]:7444')
})

test('a host with nothing but loopback says so once, and what to do; an address that comes is told', async () => {
  const { peer, warnings, interfaces } = lab({ own: [], ways: { '127.0.0.1': '127.0.0.1' } })
  expect([await peer.find(), await peer.find()]).toEqual(['127.0.0.1:7444', '127.0.0.1:7444'])
  expect(warnings).toEqual([expect.stringContaining('--peer-address')])
  interfaces.eth0.push(face('192.0.2.7'))
  expect(await peer.find()).toBe('192.0.2.7:7444')
})

test('what was said, or listened on, stands', async () => {
  const of = { own: ['192.0.2.7'], ways: {} }
  expect(await lab({ ...of, said: { host: 'host-a', port: 9 } }).peer.find()).toBe('host-a:9')
  expect(await lab({ ...of, listen: { host: '127.0.0.1', port: 8 } }).peer.find()).toBe('127.0.0.1:8')
})

test('where a sandbox does not let interfaces be listed, the way to the store tells the address', async () => {
  const addresses = new HostAddresses(
    [member('127.0.0.1'), member('198.51.100.9')],
    () => {
      throw new Error('uv_interface_addresses returned Unknown system error 97')
    },
    async (host) => (host === '127.0.0.1' ? '127.0.0.1' : '198.51.100.7'),
  )
  expect(await addresses.find()).toEqual(['198.51.100.7'])
})

import { expect, test } from 'vitest'
import { lacksOf, type Probes } from '../../src/drill/needs.ts'
import { PlasmaError } from '../../src/lib/errors.ts'

const well: Probes = {
  uid: 0,
  hasProgram: async () => true,
  hasGuest: async () => true,
  tryNetwork: async () => {},
}

test('where all is there both groups can be played', async () => {
  expect(await lacksOf('one-host', well)).toEqual([])
  expect(await lacksOf('cluster', well)).toEqual([])
})

test('one host needs neither root, nor etcd, nor namespaces', async () => {
  const bare: Probes = {
    ...well,
    uid: 1000,
    hasProgram: async (name) => name === 'qemu-system-x86_64',
    tryNetwork: () => Promise.reject(new Error('no')),
  }
  expect(await lacksOf('one-host', bare)).toEqual([])
})

test('programs that are missing are named with their packages, each once', async () => {
  const lacks = await lacksOf('cluster', {
    ...well,
    hasProgram: async (name) => !['ip', 'nsenter', 'unshare', 'etcd'].includes(name),
  })
  expect(lacks).toEqual([
    {
      what: 'not installed: ip, nsenter, unshare, etcd',
      hint: 'apt install iproute2 util-linux etcd-server (Debian)',
    },
  ])
})

test('who is not root is told so, and no network is tried', async () => {
  const tryNetwork = () => Promise.reject(new Error('must not be tried'))
  const lacks = await lacksOf('cluster', { ...well, uid: 1000, tryNetwork })
  expect(lacks).toEqual([{ what: expect.stringContaining('not root'), hint: 'run it with sudo' }])
})

test('where namespaces are not permitted it says why and what to do', async () => {
  const tryNetwork = () => {
    const cause = new Error('mount --make-shared /run/netns failed: Operation not permitted')
    return Promise.reject(new PlasmaError('NoNamespaces', 'no', { cause, hint: 'it needs CAP_SYS_ADMIN' }))
  }
  expect(await lacksOf('cluster', { ...well, tryNetwork })).toEqual([
    { what: expect.stringContaining('Operation not permitted'), hint: 'it needs CAP_SYS_ADMIN' },
  ])
})

test('a guest that is not built, and no QEMU, keep both groups from being played', async () => {
  const none: Probes = { ...well, hasGuest: async () => false, hasProgram: async () => false }
  for (const group of ['one-host', 'cluster'] as const) {
    const whats = (await lacksOf(group, none)).map(({ what }) => what)
    expect(whats).toEqual(expect.arrayContaining(["the drill's guest is not built", 'no QEMU']))
  }
})

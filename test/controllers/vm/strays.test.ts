import { describe, expect, test } from 'vitest'
import { Memories } from '../../../src/controllers/vm/memory.ts'
import { concerns, isOurs, strayWords } from '../../../src/controllers/vm/strays.ts'
import { adoptedFrom } from '../../../src/resources/adopted.ts'
import { apiVersionOf } from '../../../src/resources/define.ts'
import { FenceEvidence } from '../../../src/resources/fence-evidence.ts'
import { identity, machine, uid } from './fixture.ts'

function evidence(host: string, epoch: number): FenceEvidence {
  return {
    ...{ apiVersion: apiVersionOf(FenceEvidence), kind: FenceEvidence.kind },
    metadata: { name: `${host}-${epoch}` },
    spec: { host, epoch, proof: 'Guard', by: 'leader', at: '', votes: [], seen: '' },
  }
}

describe('a QEMU of host-a, launched under epoch 3, is a stray', () => {
  test.each<[string, string | undefined, FenceEvidence | undefined, boolean]>([
    ['where its machine is on host-b', 'host-b', undefined, true],
    ['where its machine is on host-a', 'host-a', undefined, false],
    ['where its machine is on host-a again, taken from it before', 'host-a', evidence('host-a', 4), false],
    ['where its machine has no host', undefined, undefined, false],
    ['where its machine was taken from host-a since', undefined, evidence('host-a', 4), true],
    ['where its machine was taken from host-a before', undefined, evidence('host-a', 3), false],
    ['where its machine was taken from host-b', undefined, evidence('host-b', 44), false],
  ])('%s: %s', (_what, hostName, proof, is) => {
    const vm = machine({}, hostName === undefined ? {} : { hostName })
    expect(strayWords(vm, { epoch: 3 }, 'host-a', proof) !== undefined).toBe(is)
  })

  test('only if it is known when it was launched, where that counts', () => {
    expect(strayWords(machine(), {}, 'host-a', evidence('host-a', 4))).toBeUndefined()
    expect(strayWords(machine({}, { hostName: 'host-b' }), {}, 'host-a', undefined)).toContain('host-b')
  })
})

test.each([
  ['ours', { launchId: 'l-1', runDir: '/run/ours' }, true],
  ['of another run directory', { launchId: 'l-1', runDir: '/run/theirs' }, false],
  ['without our mark', { runDir: '/run/ours' }, false],
  ['of nobody we know', {}, false],
])('a QEMU %s is one that may be stopped: %s', (_what, of, is) => {
  expect(isOurs({ ...identity, uid, name: 'default/web', state: 'S', ...of }, '/run/ours')).toBe(is)
})

describe('a machine concerns this host', () => {
  const here = (has: boolean, known = false) => {
    const memories = new Memories()
    if (known) memories.of(uid)
    return { hostName: 'host-a', memories, inventory: { has: () => has } }
  }

  test.each([
    ['that is placed here', machine({}, { hostName: 'host-a' }), here(false), true],
    ['that is placed elsewhere', machine({}, { hostName: 'host-b' }), here(false), false],
    ['that is placed elsewhere and has a QEMU here', machine({}, { hostName: 'host-b' }), here(true), true],
    ['that was here until now', machine({}, { hostName: 'host-b' }), here(false, true), true],
    ['that is placed nowhere', machine(), here(false), false],
    [
      'that was made for a QEMU of here',
      machine({}, {}, { annotations: { [adoptedFrom]: 'host-a' } }),
      here(false),
      true,
    ],
  ])('%s', (_what, vm, deps, does) => {
    expect(concerns(vm, deps)).toBe(does)
  })
})

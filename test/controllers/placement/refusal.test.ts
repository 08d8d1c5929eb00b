import { expect, test } from 'vitest'
import { companyOn } from '../../../src/controllers/placement/company.ts'
import { refusal } from '../../../src/controllers/placement/fit.ts'
import type { World } from '../../../src/controllers/placement/plan.ts'
import type { VirtualMachine } from '../../../src/resources/vm.ts'
import { type Informer, keyOf } from '../../../src/runtime/informer.ts'
import { host, labelled, machine, placed } from './fixture.ts'

const vm = machine('new')
const web = labelled({ app: 'web' })

const rows: readonly (readonly [
  string,
  VirtualMachine,
  World['hosts'][number],
  VirtualMachine[],
  string | undefined,
])[] = [
  ['takes one', vm, host('a'), [], undefined],
  ['needs no lease, and no condition', vm, host('a', {}, { conditions: [] }), [], undefined],
  ['refuses when cordoned', vm, host('a', { unschedulable: true }), [], 'cordoned (spec.unschedulable)'],
  [
    'refuses for a taint',
    vm,
    host('a', { taints: [{ key: 'x', effect: 'NoSchedule' }] }),
    [],
    'taint x:NoSchedule is not among spec.tolerations',
  ],
  [
    'refuses another’s',
    machine('new', { hostSelector: { 'kubernetes.io/hostname': 'b' } }),
    host('a'),
    [],
    'spec.hostSelector wants kubernetes.io/hostname=b, it has kubernetes.io/hostname=a',
  ],
  [
    'takes as many as are wanted',
    vm,
    host('a'),
    [placed('x', 'a', { memory: '8Gi' }), placed('y', 'a', { cpu: { cores: 64 } })],
    undefined,
  ],
  [
    'refuses what is larger than it is',
    machine('new', { memory: '9Gi' }),
    host('a'),
    [],
    'memory: 9Gi wanted, the host offers 8Gi in all',
  ],
  [
    'does not count the machine itself',
    machine('new', { memory: '5Gi' }),
    host('a'),
    [machine('new', { memory: '5Gi' })],
    undefined,
  ],
  ['refuses nothing for what it has not said', vm, { ...host('a'), status: undefined }, [], undefined],
  [
    'keeps machines apart',
    machine('new', {}, undefined, web),
    host('a'),
    [placed('x', 'a', { affinity: { apart: [{ labels: { app: 'web' } }] } })],
    'affinity.apart of default/x, which is there: app=web',
  ],
  [
    'begins a group',
    machine('new', { affinity: { together: [{ labels: { app: 'web' } }] } }, undefined, web),
    host('a'),
    [],
    undefined,
  ],
  [
    'keeps one apart that asks for it',
    machine('new', { affinity: { apart: [{ labels: { app: 'web' } }] } }),
    host('a'),
    [placed('x', 'a', {}, web)],
    'affinity.apart: default/x with app=web is there',
  ],
  [
    'does not care who is elsewhere',
    machine('new', {}, undefined, web),
    host('a'),
    [placed('x', 'b', { affinity: { apart: [{ labels: { app: 'web' } }] } })],
    undefined,
  ],
]

/** A copy that shows each of the machines, one after another, and then loses those that are named. */
function copyOf(machines: readonly VirtualMachine[], gone: readonly string[] = []) {
  const left = () => machines.filter(({ metadata }) => !gone.includes(metadata.name))
  const onChange: Informer<VirtualMachine>['onChange'] = (listener) => {
    for (const vm of machines) listener(keyOf(vm), vm)
    for (const name of gone) listener(`default/${name}`, undefined)
    return () => {}
  }
  return { list: left, onChange }
}

test.each(rows)('a host that is alone %s', (_what, one, on, others, message) => {
  expect(refusal(one, on, companyOn('a', copyOf(others)))).toBe(message)
})

test('one that has gone keeps nobody away', () => {
  const shy = placed('x', 'a', { affinity: { apart: [{ labels: { app: 'web' } }] } })
  const one = machine('new', {}, undefined, web)
  expect(refusal(one, host('a'), companyOn('a', copyOf([shy], ['x'])))).toBe(undefined)
})

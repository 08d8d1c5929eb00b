import { describe, expect, it } from 'vitest'
import type { ResourceDefinition } from '../../src/resources/define.ts'
import { Event, Host, Namespace } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { parseFieldSelector } from '../../src/server/field-selector.ts'

const vm = {
  ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine' },
  metadata: { name: 'web', namespace: 'default' },
  ...{ spec: { runStrategy: 'Always' }, status: { phase: 'Running' } },
}

describe('field selectors', () => {
  it.each([
    ['metadata.name=web', true],
    ['metadata.name==web', true],
    ['metadata.name!=web', false],
    ['metadata.namespace=default,status.phase=Running', true],
    ['metadata.namespace=default,status.phase=Stopped', false],
    ['status.hostName=', true],
    ['status.hostName!=', false],
    ['status.hostName!=host-1', true],
    ['spec.runStrategy=Always,', true],
    ['metadata.name=we\\,b', false],
    ['metadata.name!=a\\=b', true],
    ['metadata.name=toString', false],
  ])('%s is %s', (text, wanted) => {
    expect(parseFieldSelector(text, VirtualMachine as ResourceDefinition)?.matches(vm)).toBe(wanted)
  })

  it('take a backslash before what would end a value', () => {
    const named = (name: string) => ({ ...vm, metadata: { name } })
    const selector = parseFieldSelector('metadata.name=a\\,b\\=c\\\\d', VirtualMachine as ResourceDefinition)
    expect(selector?.matches(named('a,b=c\\d'))).toBe(true)
    expect(selector?.name).toBe('a,b=c\\d')
  })

  it.each([
    ['metadata.name', VirtualMachine, "invalid selector: 'metadata.name'; can't understand 'metadata.name'"],
    ['metadata.name=a=b', VirtualMachine, 'equals sign'],
    ['metadata.name=a\\b', VirtualMachine, 'a backslash goes before'],
    ['metadata.name=a\\', VirtualMachine, 'a backslash goes before'],
    ['spec.memory=1Gi', VirtualMachine, 'field label not supported: spec.memory'],
    ['=web', VirtualMachine, 'field label not supported: '],
    ['status.phase=Active', Host, 'field label not supported: status.phase'],
    ['constructor=x', VirtualMachine, 'field label not supported: constructor'],
    ['message=x', Event, 'field label not supported: message'],
  ])('refuse %s', (text, kind, why) => {
    expect(() => parseFieldSelector(text, kind as ResourceDefinition)).toThrow(why)
  })

  it("know what Kubernetes' own kinds can be selected by", () => {
    const event = { ...vm, involvedObject: { name: 'web' }, source: { component: 'agent' } }
    const matches = (text: string) => parseFieldSelector(text, Event as ResourceDefinition)?.matches(event)
    expect(matches('involvedObject.name=web,source=agent,type=')).toBe(true)
    expect(matches('involvedObject.name=db')).toBe(false)
    const ns = { ...vm, status: { phase: 'Active' } }
    const active = parseFieldSelector('status.phase=Active', Namespace as ResourceDefinition)
    expect(active?.matches(ns)).toBe(true)
    expect(parseFieldSelector('', Event as ResourceDefinition)).toBeUndefined()
  })
})

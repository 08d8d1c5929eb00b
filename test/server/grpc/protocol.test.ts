import { createRequire } from 'node:module'
import { expect, test } from 'vitest'
import protocol from '../../../src/server/grpc/vmservice.json' with { type: 'json' }

const { FileDescriptorProto } = createRequire(import.meta.url)('protobufjs/ext/descriptor')
const file = FileDescriptorProto.toObject(FileDescriptorProto.decode(Buffer.from(protocol.file, 'base64')))

interface Message {
  readonly name: string
  readonly field?: readonly {
    name: string
    typeName?: string
    proto3Optional?: boolean
    oneofIndex?: number
  }[]
  readonly nestedType?: readonly Message[]
  readonly oneofDecl?: readonly { name: string }[]
  readonly options?: { readonly mapEntry?: boolean }
}

const message = (name: string) => file.messageType.find((one: Message) => one.name === name) as Message

// What protoc writes, and what clients in Go and Python check before they use it.
test('names of types are whole', () => {
  expect(file).toMatchObject({ name: 'vmservice.proto', package: 'plasmavmc', syntax: 'proto3' })
  const all = (at: Message): string[] => [
    ...(at.field ?? []).flatMap(({ typeName }) => typeName ?? []),
    ...(at.nestedType ?? []).flatMap(all),
  ]
  const names = new Set((file.messageType as Message[]).flatMap(all))
  expect([...names].sort()).toEqual([
    '.plasmavmc.CreateVmRequest.LabelsEntry',
    '.plasmavmc.Vm',
    '.plasmavmc.Vm.LabelsEntry',
    '.plasmavmc.VmEvent.Type',
    '.plasmavmc.VmState',
  ])
  for (const { inputType, outputType } of file.service[0].method) {
    expect(inputType).toMatch(/^\.plasmavmc\.[A-Z]\w+Request$/)
    expect(outputType).toMatch(/^\.plasmavmc\.(Vm|VmEvent|[A-Z]\w+Response)$/)
  }
})

test('entries of a map are called by its field', () => {
  expect(message('Vm').nestedType).toMatchObject([{ name: 'LabelsEntry', options: { mapEntry: true } }])
})

test('what has presence is optional, not one of one', () => {
  const optional = (name: string) =>
    (message(name).field ?? []).filter(({ proto3Optional }) => proto3Optional).map((field) => field.name)
  expect(optional('CreateVmRequest')).toEqual(['vcpus', 'memory_mb'])
  expect(optional('GetCapabilitiesResponse')).toEqual(['live_migration'])
  expect(optional('Vm')).toEqual([])
})

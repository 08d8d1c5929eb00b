import { once } from 'node:events'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { Client, credentials, Metadata, type ServiceDefinition } from '@grpc/grpc-js'
import { loadFileDescriptorSetFromBuffer, loadSync } from '@grpc/proto-loader'

const protocols = join(dirname(createRequire(import.meta.url).resolve('@grpc/reflection')), '..', 'proto')
const loading = { longs: String, enums: String, bytes: Buffer, defaults: true, oneofs: true }

export type Version = 'v1' | 'v1alpha'

// biome-ignore lint/suspicious/noExplicitAny: what reflection answers has many shapes
type Answer = any

/** One question to a server's reflection service, asked by a stranger who has nothing but its public protocol. */
export async function ask(
  address: string,
  question: object,
  { token, version = 'v1' }: { token?: string; version?: Version },
): Promise<Answer> {
  const file = join(protocols, 'grpc', 'reflection', version, 'reflection.proto')
  const definition = loadSync(file, loading)
  const service = definition[`grpc.reflection.${version}.ServerReflection`] as ServiceDefinition
  const { path, requestSerialize, responseDeserialize } = service['ServerReflectionInfo']!
  const client = new Client(address, credentials.createInsecure())
  const metadata = new Metadata()
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`)
  const stream = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata)
  try {
    stream.write(question)
    const [answer] = await once(stream, 'data')
    stream.end()
    return answer
  } finally {
    stream.cancel()
    stream.on('error', () => {})
    client.close()
  }
}

/** The service as reflection describes it: what grpcurl works with. */
export async function reflected(
  address: string,
  name: string,
  options: { token: string; version?: Version },
): Promise<ServiceDefinition> {
  const answer = await ask(address, { fileContainingSymbol: name }, options)
  const files: readonly Buffer[] = answer.fileDescriptorResponse.fileDescriptorProto
  // A FileDescriptorSet: field 1, repeated.
  const parts = files.flatMap((file) => [Buffer.from([0x0a, ...varint(file.length)]), file])
  const definition = loadFileDescriptorSetFromBuffer(Buffer.concat(parts), {
    ...{ keepCase: true, longs: Number, enums: String, defaults: true },
  })
  return definition[name] as ServiceDefinition
}

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)]
}

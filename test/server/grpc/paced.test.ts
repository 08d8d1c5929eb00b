import type { ServerInterceptingCallInterface } from '@grpc/grpc-js'
import { expect, test } from 'vitest'
import { PacedCall } from '../../../src/server/grpc/server.ts'

test('no message is read while an answer waits to be taken', () => {
  const taken: (() => void)[] = []
  let reads = 0
  const connection = {
    sendMetadata() {},
    sendMessage: (_message: unknown, callback: () => void) => void taken.push(callback),
    startRead() {
      reads += 1
    },
  } as unknown as ServerInterceptingCallInterface
  const call = new PacedCall(connection)
  call.startRead()
  expect(reads).toBe(1)
  let sent = 0
  call.sendMessage('one', () => {
    sent += 1
  })
  call.sendMessage('two', () => {
    sent += 1
  })
  call.startRead()
  taken[0]?.()
  expect([sent, reads]).toEqual([1, 1])
  taken[1]?.()
  expect([sent, reads]).toEqual([2, 2])
  call.startRead()
  expect(reads).toBe(3)
})

import { expect, test } from 'vitest'
import { jsonLog } from '../../src/lib/log.ts'
import { lab, machines } from './fixture.ts'

test('what is logged of a request bears the id that the client and the audit log have', async () => {
  const lines: Record<string, unknown>[] = []
  const log = jsonLog('info', { write: (line: string) => void lines.push(JSON.parse(line)) })
  const server = await lab({ log })
  server.objects.create = async () => {
    // As any part of the server does that knows nothing of requests.
    log.child({ part: 'deep' }).warn('no room')
    throw new Error('the disk is full')
  }
  const body = {
    apiVersion: 'plasmavmc.io/v1alpha1',
    kind: 'VirtualMachine',
    metadata: { name: 'a' },
    spec: {},
  }
  const one = await server.call('POST', machines, body)
  const two = await server.call('POST', machines, body)
  expect([one.code, two.code]).toEqual([500, 500])
  const ids = [one, two].map(({ headers }) => headers['audit-id'])
  expect(new Set(ids).size).toBe(2)
  const logged = (msg: string) => lines.filter((line) => line['msg'] === msg).map(({ auditID }) => auditID)
  expect(logged('no room')).toEqual(ids)
  expect(logged('request failed')).toEqual(ids)
  expect(server.audits.map(({ auditID }) => auditID)).toEqual(ids)
})

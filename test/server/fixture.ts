import type { FastifyInstance, InjectOptions } from 'fastify'
import type { AuditRecord } from '../../src/auth/audit.ts'
import { mastersGroup } from '../../src/auth/identity.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { kinds, Namespace, namespaceNamed } from '../../src/resources/kinds.ts'
import { VirtualMachine, vmStatus } from '../../src/resources/vm.ts'
import { createServer, type ServerDeps } from '../../src/server/server.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'

export const machines = '/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines'
export const merge = 'application/merge-patch+json'

export interface Lab {
  readonly app: FastifyInstance
  readonly objects: KvObjects
  /** Where they are kept. */
  readonly kv: MemoryKv
  readonly audits: AuditRecord[]
  readonly call: (
    method: string,
    url: string,
    body?: unknown,
    headers?: Record<string, string>,
  ) => Promise<Reply>
  /** Makes a machine and gives it a process, as a host would. */
  readonly running: (name: string, runStrategy?: string) => Promise<void>
}

export interface Reply {
  readonly code: number
  readonly text: string
  readonly headers: Readonly<Record<string, unknown>>
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of many shapes
  readonly json: any
}

/** A server over a store in memory, with a namespace `default`, that lets in whoever sends `Bearer admin`. */
export async function lab(change: Partial<ServerDeps> & { historyLimit?: number } = {}): Promise<Lab> {
  const { historyLimit = 10_000, ...rest } = change
  const kv = new MemoryKv({ historyLimit })
  const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
  const audits: AuditRecord[] = []
  const app = createServer({
    ...{ objects, kinds, clock: systemClock, log: silentLog, version: '0.1.0', ready: () => [] },
    audit: (record) => audits.push(record),
    authorize: (identity) => identity.groups.includes(mastersGroup),
    authenticate: ({ headers }) => {
      const sent = JSON.stringify(headers)
      if (sent.includes('Bearer admin'))
        return { ok: true, identity: { name: 'admin', groups: [mastersGroup] } }
      if (sent.includes('Bearer guest')) return { ok: true, identity: { name: 'guest', groups: [] } }
      return { ok: false, code: 'MissingAuthenticationToken', message: 'the request is not signed' }
    },
    ...rest,
  })
  await objects.create(Namespace, namespaceNamed('default'))
  return { app, objects, kv, audits, call: caller(app), running: runner(objects) }
}

function caller(app: FastifyInstance): Lab['call'] {
  return async (method, url, body, headers = {}) => {
    const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
    const type = payload === undefined ? {} : { 'content-type': 'application/json' }
    const answer = await app.inject({
      ...({ method, url } as InjectOptions),
      ...(payload !== undefined && { payload }),
      headers: { authorization: 'Bearer admin', ...type, ...headers },
    })
    const json = /json/.test(String(answer.headers['content-type'])) ? tryJson(answer.body) : undefined
    return { code: answer.statusCode, text: answer.body, headers: answer.headers, json }
  }
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

export function machine(name: string, spec: object = {}, metadata: object = {}) {
  return {
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine' },
    metadata: { name, ...metadata },
    spec,
  }
}

function runner(objects: KvObjects): Lab['running'] {
  return async (name, runStrategy = 'Always') => {
    const made = await objects.create(VirtualMachine, {
      ...machine(name, { runStrategy }, { namespace: 'default' }),
    } as never)
    const process = {
      ...{ pid: 7, startTime: 1, bootId: 'b', launchId: 'l', accelerator: 'tcg' },
      ...{ startedAt: '2026-01-02T03:04:05Z', specHash: 'h' },
    }
    const status = vmStatus.parse({ phase: 'Running', hostName: 'host-1', process })
    await objects.updateStatus(VirtualMachine, { ...made, status })
  }
}

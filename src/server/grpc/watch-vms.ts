import { once } from 'node:events'
import type { Writable } from 'node:stream'
import type { Clock } from '../../lib/clock.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import { ApiError } from '../../store/errors.ts'
import { parseSelector } from '../../store/labels.ts'
import type { TextStore } from '../../store/objects.ts'
import { vmPath } from './admission.ts'
import { scopeOf, versionOf, type WatchVmsRequest } from './requests.ts'
import type { VmCall } from './vm-call.ts'
import { type VmMessage, vmMessage } from './vm-message.ts'

export interface VmEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'SYNCED'
  readonly vm?: VmMessage
  readonly resource_version: string
}

/**
 * What is there and what becomes of it, until the signal is aborted.
 * @throws ApiError at once Forbidden and BadRequest, from the iterator Gone where the version is too old
 */
export function watchVms(
  request: WatchVmsRequest,
  call: VmCall,
  objects: TextStore,
  signal: AbortSignal,
): AsyncIterable<VmEvent> {
  const scope = scopeOf(request)
  const from = versionOf(request)
  call.allowWatch(vmPath(scope.namespace === undefined ? {} : { namespace: scope.namespace }))
  parseSelector(scope.labelSelector)
  return vmEvents(scope, from, signal, objects)
}

async function* vmEvents(
  scope: ReturnType<typeof scopeOf>,
  from: string | undefined,
  signal: AbortSignal,
  objects: TextStore,
): AsyncGenerator<VmEvent> {
  let resourceVersion = from
  if (resourceVersion === undefined) {
    const list = await objects.list(VirtualMachine, scope)
    // None of these is a version to go on from: only what has all of them is.
    for (const vm of list.items) yield { type: 'ADDED', vm: vmMessage(vm), resource_version: '' }
    resourceVersion = list.resourceVersion
  }
  yield { type: 'SYNCED', resource_version: resourceVersion }
  for await (const event of objects.watchText(VirtualMachine, { ...scope, resourceVersion, signal })) {
    const { type, resourceVersion: version } = event
    yield { type, vm: vmMessage(event.object()), resource_version: version }
  }
}

/**
 * Writes events to a client as it takes them. One that takes nothing for `ms` is let go of: until then the store's
 * bounded buffer holds what comes. @throws ApiError TooManyRequests for a client that is too slow
 */
export async function sendEvents(
  events: AsyncIterable<VmEvent>,
  client: Writable,
  { clock, signal, ms }: { clock: Clock; signal: AbortSignal; ms: number },
): Promise<void> {
  for await (const event of events) {
    if (signal.aborted) return
    if (!client.write(event)) await drained(client, clock, signal, ms)
  }
}

async function drained(client: Writable, clock: Clock, signal: AbortSignal, ms: number): Promise<void> {
  const late = new AbortController()
  const cancel = clock.after(ms, () => late.abort())
  try {
    await once(client, 'drain', { signal: AbortSignal.any([signal, late.signal]) })
  } catch (error) {
    if (signal.aborted) return
    if (!late.signal.aborted) throw error
    const hint = 'watch anew, and take events as they come'
    throw new ApiError('TooManyRequests', `the watcher took nothing for ${ms / 1_000} s`, {}, { hint })
  } finally {
    cancel()
  }
}

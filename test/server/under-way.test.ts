import { IncomingMessage, ServerResponse } from 'node:http'
import { type AddressInfo, Socket } from 'node:net'
import { expect, it } from 'vitest'
import { VirtualMachine } from '../../src/resources/vm.ts'
import { defaultLimits } from '../../src/server/limits.ts'
import { UnderWay } from '../../src/server/under-way.ts'
import type { TextStore } from '../../src/store/objects.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'
import { type Lab, lab, machine, machines } from './fixture.ts'

/** A server on a port, whose creates wait until they are let go. */
async function held(endMs = defaultLimits.endMs) {
  const go = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  const limits = { ...defaultLimits, endMs }
  const server: Lab = await lab({ limits, objectsFor: () => slow })
  const slow = new Proxy(server.objects as TextStore, {
    get(target, name) {
      const member = Reflect.get(target, name) as (...args: unknown[]) => unknown
      if (name !== 'create') return member.bind(target)
      return async (...args: unknown[]) => {
        begun.resolve()
        await go.promise
        return member.apply(target, args)
      }
    },
  })
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = server.app.server.address() as AddressInfo
  const send = (path: string, body?: object) =>
    fetch(`http://127.0.0.1:${port}${path}`, {
      ...(body && { method: 'POST', body: JSON.stringify(body) }),
      headers: { authorization: 'Bearer admin', 'content-type': 'application/json' },
    })
  return { server, send, begun: begun.promise, go: go.resolve }
}

it('ends watches in order before connections are cut, after what they were told', async () => {
  const { server, send } = await held()
  const watches = await Promise.all(
    Array.from({ length: 20 }, (_, i) => send(`${machines}?watch=true&labelSelector=a!%3D${i}`)),
  )
  await server.objects.create(VirtualMachine, machine('last', {}, { namespace: 'default' }) as never)
  await server.app.close()
  // A body that is cut off would reject.
  for (const text of await Promise.all(watches.map((answer) => answer.text())))
    expect(JSON.parse(text)).toMatchObject({ type: 'ADDED', object: { metadata: { name: 'last' } } })
})

it('answers a write that is under way, and cuts it when that takes too long', async () => {
  const { server, send, begun, go } = await held()
  const answer = send(machines, machine('a'))
  await begun
  const closed = server.app.close()
  await expect.poll(async () => (await send('/version')).status).toBe(503)
  go()
  const { status, headers } = await answer
  expect([status, headers.get('connection')]).toEqual([201, 'close'])
  await closed
  const late = await held(10)
  const lost = late.send(machines, machine('a')).catch((error: Error) => error.message)
  await late.begun
  await late.server.app.close()
  expect(await lost).toBe('fetch failed')
  late.go()
})

it('stops what begins to go on while it ends, and waits no longer than it is told', async () => {
  const clock = new VirtualClock()
  const underWay = new UnderWay()
  const answer = () => new ServerResponse(new IncomingMessage(new Socket()))
  const [one, two] = [answer(), answer()]
  let stopped = 0
  const stop = () => {
    stopped += 1
  }
  await underWay.end(clock, 100)
  underWay.begin(one)
  underWay.goesOn(one, stop)
  expect(stopped).toBe(1)
  underWay.begin(two)
  let ended = false
  const end = underWay.end(clock, 100).then(() => {
    ended = true
  })
  expect(stopped).toBe(2)
  one.emit('close')
  await clock.advance(99)
  expect(ended).toBe(false)
  await clock.advance(1)
  await end
  expect(ended).toBe(true)
  expect(clock.pending).toBe(0)
})

import { expect, test } from 'vitest'
import { refuse, reply, serving } from './fake-server.ts'

const vm = (phase: string, resourceVersion = '5') => ({
  ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', status: { phase } },
  metadata: { name: 'a', namespace: 'default', uid: 'u', resourceVersion },
})
/** A list of it alone, which is younger. */
const only = (object: object) => ({ metadata: { resourceVersion: '9' }, items: [object] })
const isWatch = (url: string) => url.includes('watch=true')
const forRunning = ['wait', 'vm', 'a', '--for=jsonpath={.status.phase}=Running']

test('wait goes on where the server went away and came back', async () => {
  let requests = 0
  const s = await serving((_, r) => {
    requests += 1
    // A look, a watch that breaks, two connections that break, a 503 of a server that is not ready.
    if (requests === 1) return reply(r, 200, only(vm('Starting')))
    if (requests <= 4) return void r.destroy()
    if (requests === 5) return refuse(r, 503, 'ServiceUnavailable', 'not yet')
    reply(r, 200, only(vm('Running')))
  })
  expect(await s.run(forRunning)).toMatchObject({ code: 0, out: expect.stringContaining('condition met') })
  expect(requests).toBe(6)
})

test('wait ends at its timeout when the server stays away, and at once when it never answered', async () => {
  let first = true
  const s = await serving((_, r) => {
    if (!first) return void r.destroy()
    first = false
    reply(r, 200, only(vm('Starting')))
  })
  const { code, err } = await s.run([...forRunning, '--timeout=1s'])
  expect({ code, err }).toEqual({
    code: 1,
    err: expect.stringMatching(/timed out after 1 s .* a is Starting/),
  })
  const never = await s.run([...forRunning, '--timeout=600s'])
  expect(never).toMatchObject({ code: 1, err: expect.stringContaining('the server went away') })
})

test('wait --timeout 0 looks once', async () => {
  let phase = 'Running'
  const s = await serving((_, r) => reply(r, 200, only(vm(phase))))
  expect(await s.run([...forRunning, '--timeout=0'])).toMatchObject({ code: 0 })
  phase = 'Starting'
  expect(await s.run([...forRunning, '--timeout=0s'])).toMatchObject({
    ...{
      code: 1,
      err: expect.stringContaining('looked once, without waiting, for {.status.phase}=Running; a is S'),
    },
  })
  expect(s.seen.map(({ url }) => isWatch(url))).toEqual([false, false])
})

const row = (phase: string, version: string) => ({
  ...{ kind: 'Table', columnDefinitions: [{ name: 'Name' }, { name: 'Status' }] },
  rows: [{ cells: ['a', phase], object: vm(phase, version) }],
})

test.each(['get', 'events'])('%s -w goes on from what it saw, and says so once', async (command) => {
  const stop = new AbortController()
  let watches = 0
  const table = command === 'get'
  const s = await serving(({ url }, r) => {
    if (!isWatch(url)) return reply(r, 200, { metadata: { resourceVersion: '5' }, items: [], rows: [] })
    watches += 1
    const send = (text: string, version: string) => {
      const event = { metadata: { name: text, resourceVersion: version }, message: text }
      r.write(`${JSON.stringify({ type: 'ADDED', object: table ? row(text, version) : event })}\n`)
    }
    r.writeHead(watches === 3 ? 503 : 200)
    if (watches === 1) send('First', '7')
    if (watches === 3) return void r.end('restarting')
    if (watches === 4) return send('Second', '8')
    setImmediate(() => r.destroy())
  })
  const onOut = (text: string) => text.includes('Second') && stop.abort()
  const { code, out, err } = await s.run([command, ...(table ? ['vms'] : []), '-w'], {
    signal: stop.signal,
    onOut,
  })
  expect(out).toMatch(/First[\s\S]*Second/)
  expect(code).toBe(0)
  expect(err.match(/trying again/g)?.length).toBeLessThanOrEqual(2)
  expect(err).toMatch(
    /^Note: the connection to .* broke: the server went away; trying again, Ctrl-C ends this$/m,
  )
  expect(err).toContain('Note: the server answers again; going on')
  const versions = s.seen
    .filter(({ url }) => isWatch(url))
    .map(({ url }) => /resourceVersion=(\d+)/.exec(url)?.[1])
  expect(versions).toEqual(['5', '7', '7', '7'])
})

test('get -w lists anew what the server no longer remembers, and ends with what does not pass', async () => {
  let watches = 0
  const s = await serving(({ url }, r) => {
    if (!isWatch(url)) return reply(r, 200, { metadata: { resourceVersion: '5' }, rows: [] })
    watches += 1
    if (watches === 1) return refuse(r, 410, 'Expired', 'too old')
    refuse(r, 403, 'Forbidden', 'no more')
  })
  const { code, err } = await s.run(['get', 'vms', '-w'])
  expect({ code, err }).toEqual({ code: 1, err: expect.stringMatching(/listed anew[\s\S]*Forbidden/) })
  expect(s.seen.at(-1)?.url).not.toContain('resourceVersion')
})

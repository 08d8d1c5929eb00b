import { beforeEach, expect, it } from 'vitest'
import { runStrategies } from '../../src/resources/vm.ts'
import { type Lab, lab, machine, machines } from './fixture.ts'

let server: Lab
beforeEach(async () => {
  server = await lab()
})

const verbs = ['start', 'stop', 'restart', 'pause', 'unpause', 'reset'] as const
type Outcomes = Readonly<Record<(typeof verbs)[number], string>>

const whileRunning: Outcomes = {
  ...{ start: 'refused', stop: 'Stop', restart: 'Restart' },
  ...{ pause: 'Pause', unpause: 'refused', reset: 'Reset' },
}
const whileStopped: Outcomes = {
  ...{ start: 'Start', stop: 'refused', restart: 'refused' },
  ...{ pause: 'refused', unpause: 'refused', reset: 'refused' },
}
const own: Readonly<Record<string, { running: Partial<Outcomes>; stopped: Partial<Outcomes> }>> = {
  Always: {
    running: { stop: '-> Halted' },
    stopped: { start: 'refused', stop: '-> Halted', restart: 'Restart' },
  },
  // Halted and running is about to be stopped.
  Halted: {
    running: { start: '-> Always', stop: 'refused', restart: 'refused', pause: 'refused', reset: 'refused' },
    stopped: { start: '-> Always' },
  },
}

const table = runStrategies.flatMap((strategy) =>
  verbs.flatMap((verb) => [
    { strategy, verb, alive: true, outcome: own[strategy]?.running[verb] ?? whileRunning[verb] },
    { strategy, verb, alive: false, outcome: own[strategy]?.stopped[verb] ?? whileStopped[verb] },
  ]),
)

it.each(table)(
  '$verb of $strategy, running: $alive: $outcome',
  async ({ strategy, verb, alive, outcome }) => {
    if (alive) await server.running('vm', strategy)
    else await server.call('POST', machines, machine('vm', { runStrategy: strategy }))
    const { code, json } = await server.call('POST', `${machines}/vm/${verb}`)
    if (outcome === 'refused') {
      expect([code, json.reason]).toEqual([409, 'Conflict'])
      expect(json.message).toMatch(new RegExp(`^can't ${verb} vm: .`))
    } else if (outcome.startsWith('->')) {
      expect([code, json.spec.runStrategy]).toEqual([202, outcome.slice(3)])
    } else {
      expect([code, json.status.request?.action]).toEqual([202, outcome])
    }
  },
)

it('asks a machine’s host to give it up, and nobody where it has none', async () => {
  await server.running('vm')
  const placed = await server.call('GET', `${machines}/vm`)
  placed.json.status.hostName = 'a'
  await server.call('PUT', `${machines}/vm/status`, placed.json)
  const { code, json } = await server.call('POST', `${machines}/vm/move`)
  expect([code, json.status.request?.action, json.spec.runStrategy]).toEqual([202, 'Move', 'Always'])
  await server.call('POST', machines, machine('free'))
  const refused = await server.call('POST', `${machines}/free/move`)
  expect([refused.code, refused.json.message]).toEqual([409, "can't move free: it is on no host"])
})

it('refuses a second request while one waits, and names it', async () => {
  await server.running('vm')
  expect((await server.call('POST', `${machines}/vm/pause`)).code).toBe(202)
  const { code, json } = await server.call('POST', `${machines}/vm/restart`)
  expect([code, json.reason]).toEqual([409, 'Conflict'])
  expect(json.message).toContain('Pause was asked for at')
})

it('of a machine that is not there', async () => {
  expect((await server.call('POST', `${machines}/no/start`)).code).toBe(404)
})

it('the log is text, its length bounded', async () => {
  const asked: number[] = []
  const logging = await lab({
    logOf: async (ref, bytes) => {
      asked.push(bytes)
      return `log of ${ref.namespace}/${ref.name}\n`
    },
  })
  const { text, headers } = await logging.call('GET', `${machines}/vm/log?tailBytes=10`)
  await logging.call('GET', `${machines}/vm/log`)
  await logging.call('GET', `${machines}/vm/log?tailBytes=999999999`)
  expect([text, headers['content-type']]).toEqual(['log of default/vm\n', 'text/plain; charset=utf-8'])
  expect(asked).toEqual([10, 64 * 1024, 1024 * 1024])
})

it('records who changed what, and who was refused; never who read', async () => {
  await server.call('POST', machines, machine('vm'))
  await server.call('GET', machines)
  await server.call('GET', machines, undefined, { authorization: '' })
  await server.call('DELETE', `${machines}/no`)
  const seen = server.audits.map((record) => [
    record['verb'],
    (record['user'] as { username: string }).username,
    (record['responseStatus'] as { code: number }).code,
  ])
  expect(seen).toEqual([
    ['create', 'admin', 201],
    ['get', 'system:anonymous', 401],
    ['delete', 'admin', 404],
  ])
})

it('says whether it is ready and what it is to whoever asks', async () => {
  const store = { name: 'store', ok: true }
  const machines = { name: 'machines', ok: false, message: '2 to look\n  at' }
  const [ready, notYet] = [
    await lab({ ready: () => [store] }),
    await lab({ ready: async () => [store, machines] }),
  ]
  const ask = (path: string, to = server) => to.call('GET', path, undefined, { authorization: '' })
  for (const path of ['/livez', '/healthz', '/readyz']) expect((await ask(path)).text).toBe('ok')
  expect((await ask('/version')).json).toMatchObject({
    major: '1',
    gitVersion: expect.stringMatching(/^v1\.\d+\.0\+plasmavmc-0\.1\.0$/),
  })
  expect((await ask('/readyz?verbose', ready)).text).toBe('[+]ping ok\n[+]store ok\nreadyz check passed\n')
  expect(await ask('/readyz', notYet)).toMatchObject({
    code: 503,
    text: '[+]ping ok\n[+]store ok\n[-]machines failed: 2 to look at\nreadyz check failed\n',
  })
  // A server that waits for something is alive: to start it anew would not help.
  expect(await ask('/livez', notYet)).toMatchObject({ code: 200, text: 'ok' })
})

it('tells clients what is served', async () => {
  const body = async (path: string) => (await server.call('GET', path)).json
  expect((await body('/api')).versions).toEqual(['v1'])
  expect((await body('/apis')).groups.map(({ name }: { name: string }) => name)).toContain('plasmavmc.io')
  const { resources } = await body('/apis/plasmavmc.io/v1alpha1')
  const names = resources.map(({ name }: { name: string }) => name)
  expect(names).toEqual(
    expect.arrayContaining(['virtualmachines', 'virtualmachines/status', 'virtualmachines/start']),
  )
  const { paths } = await body('/openapi/v3')
  for (const { serverRelativeURL } of Object.values(paths) as { serverRelativeURL: string }[])
    expect((await body(serverRelativeURL)).openapi).toBe('3.0.0')
  expect((await body('/openapi/v2')).swagger).toBe('2.0')
})

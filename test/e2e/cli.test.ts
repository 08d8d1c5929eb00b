import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Lab, program, tiny } from './lab.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
})
afterAll(() => lab.close())

const vm = (name: string) => `virtualmachine.plasmavmc.io/${name}`
const devices = '{rng: false, balloon: false, guestAgent: false}'

/** YAML of the smallest machine. */
function yaml(name: string, { label = 'shop', grace = 0 } = {}): string {
  return [
    'apiVersion: plasmavmc.io/v1alpha1',
    'kind: VirtualMachine',
    `metadata: {name: ${name}, labels: {app: ${label}}}`,
    `spec: {machine: pc, memory: 32Mi, terminationGracePeriodSeconds: ${grace}, devices: ${devices}}`,
    '',
  ].join('\n')
}

function file(name: string, ...documents: readonly string[]): string {
  const path = join(lab.dir, name)
  writeFileSync(path, documents.join('---\n'))
  return path
}

const done = (stdout: string) => ({ code: 0, stdout, stderr: '' })

describe('apply', () => {
  test('says created, unchanged and configured, for each document', async () => {
    const both = file('both.yaml', yaml('a'), yaml('b'))
    expect(await lab.cli('apply', '-f', both)).toEqual(done(`${vm('a')} created\n${vm('b')} created\n`))
    expect(await lab.cli('apply', '-f', both)).toEqual(done(`${vm('a')} unchanged\n${vm('b')} unchanged\n`))
    file('both.yaml', yaml('a', { grace: 1 }), yaml('b'))
    expect(await lab.cli('apply', '-f', both)).toEqual(done(`${vm('a')} configured\n${vm('b')} unchanged\n`))
    expect((await lab.vm('a')).spec.terminationGracePeriodSeconds).toBe(1)
  })

  test('takes a folder and standard input', async () => {
    const folder = join(lab.dir, 'folder')
    mkdirSync(folder)
    writeFileSync(join(folder, 'c.yaml'), yaml('c'))
    writeFileSync(join(folder, 'd.json'), JSON.stringify(tiny('d', { runStrategy: 'Halted' })))
    expect(await lab.cli('apply', '-f', folder)).toEqual(done(`${vm('c')} created\n${vm('d')} created\n`))
    const piped = await lab.run(program, ['apply', '-f', '-'], yaml('e'))
    expect(piped).toEqual(done(`${vm('e')} created\n`))
  })

  test('changes nothing in a dry run', async () => {
    const dry = file('dry.yaml', yaml('a', { grace: 2 }), yaml('dry'))
    const client = await lab.cli('apply', '-f', dry, '--dry-run')
    expect(client).toEqual(done(`${vm('a')} configured (dry run)\n${vm('dry')} created (dry run)\n`))
    const server = await lab.cli('apply', '-f', dry, '--dry-run=server')
    const told = `${vm('a')} configured (server dry run)\n${vm('dry')} created (server dry run)\n`
    expect(server).toEqual(done(told))
    expect((await lab.vm('a')).spec.terminationGracePeriodSeconds).toBe(1)
    expect(await lab.cli('get', 'vm', 'dry')).toMatchObject({ code: 1 })
  })

  test('on the server: takes no field of another manager unless it is forced, and shows whose it is', async () => {
    const path = file('shared.yaml', yaml('shared'))
    const applied = done(`${vm('shared')} serverside-applied\n`)
    expect(await lab.cli('apply', '--server-side', '-f', path)).toEqual(applied)
    file('shared.yaml', yaml('shared', { label: 'other' }))
    const refused = await lab.cli('apply', '--server-side', '--field-manager', 'ci', '-f', path)
    expect(refused).toMatchObject({ code: 1, stdout: '' })
    expect(refused.stderr).toContain('conflict with "plasmavmc": .metadata.labels.app')
    expect(refused.stderr).toContain('--force-conflicts')
    const forced = ['apply', '--server-side', '--force-conflicts', '--field-manager', 'ci', '-f', path]
    expect(await lab.cli(...forced)).toEqual(applied)
    const shown = await lab.cli('get', 'vm', 'shared', '-o', 'yaml', '--show-managed-fields')
    expect(shown.stdout).toMatch(/managedFields:[\s\S]*manager: ci/)
    expect((await lab.cli('get', 'vm', 'shared', '-o', 'yaml')).stdout).not.toContain('managedFields')
    expect(await lab.cli('apply', '--force-conflicts', '-f', path)).toMatchObject({ code: 2 })
    expect(await lab.cli('delete', 'vm', 'shared')).toMatchObject({ code: 0 })
  })

  test('prunes what was applied before and is not in the files now, and only that', async () => {
    const keep = file('keep.yaml', yaml('a', { grace: 1 }), yaml('b'), yaml('c'))
    const pruned = await lab.cli('apply', '-f', keep, '--prune', '-l', 'app=shop')
    expect(pruned.code).toBe(0)
    expect(pruned.stdout).toContain(`${vm('e')} pruned\n`)
    await lab.gone('e')
    const left = await lab.cli('get', 'vms', '-o', 'name')
    expect(left).toEqual(done(`${['a', 'b', 'c', 'd'].map(vm).join('\n')}\n`))
  })

  test('names the line of what it can’t take, and makes the rest so', async () => {
    const bad = file('bad.yaml', yaml('b'), yaml('bad').replace('memory: 32Mi', 'memory: lots'))
    const refused = await lab.cli('apply', '-f', bad)
    expect(refused).toMatchObject({ code: 1, stdout: `${vm('b')} unchanged\n` })
    expect(refused.stderr).toMatch(/spec\.memory/)
    expect(refused.stderr).toContain('bad.yaml:')
    const broken = await lab.run(program, ['apply', '-f', '-'], 'kind: [unclosed')
    expect(broken.code).toBe(1)
    expect(broken.stderr).toMatch(/line 1|:1/)
  })
})

describe('looking', () => {
  test('wait, and get in every format', async () => {
    expect(await lab.cli('wait', 'vm', 'a', 'b', '--for=condition=Ready', '--timeout=60s')).toEqual(
      done(`${vm('a')} condition met\n${vm('b')} condition met\n`),
    )
    const [table, wide, json, text] = await Promise.all([
      lab.cli('get', 'vms'),
      lab.cli('get', 'vms', '-o', 'wide'),
      lab.cli('get', 'vm', 'a', '-o', 'json'),
      lab.cli('get', 'vm', 'a', '-o', 'yaml'),
    ])
    expect(table.stdout).toMatch(/^NAME +STATUS +HOST +CPUS +MEMORY +RESTARTS +AGE\n/)
    expect(table.stdout).toMatch(/^a +Running +lab +1 +32Mi +0 +\d+s$/m)
    expect(table.stdout).toMatch(/^d +Stopped +/m)
    expect(wide.stdout).toMatch(/^a +Running .* Always +\d+ +Running$/m)
    expect(JSON.parse(json.stdout)).toMatchObject({ metadata: { name: 'a' }, status: { phase: 'Running' } })
    expect(text.stdout).toContain('kind: VirtualMachine')
    expect((await lab.cli('get', 'vms', '-l', 'app=shop', '-o', 'name')).stdout).toBe(
      ['a', 'b', 'c'].map((name) => `${vm(name)}\n`).join(''),
    )
  })

  test('get -w and events -w go on until they are told to stop', async () => {
    const [vms, events] = [
      ['get', 'vms', '-w'],
      ['events', '-w'],
    ].map((args) => {
      const child = lab.spawn(program, args)
      const seen = { child, text: '', closed: once(child, 'close') }
      child.stdout?.on('data', (chunk: Buffer) => {
        seen.text += chunk.toString()
      })
      return seen
    }) as [Followed, Followed]
    await lab.until('both have listed', () => vms.text.includes('\nd ') && events.text.includes('/a '))
    await lab.cli('start', 'd')
    await lab.until('the table follows', () => /^d +Running /m.test(vms.text))
    await lab.until('the events follow', () => /Running +virtualmachine\/d /.test(events.text))
    for (const { child, closed } of [vms, events]) {
      child.kill('SIGINT')
      await closed
    }
  })

  test('describe, events, logs and explain', async () => {
    const described = await lab.cli('describe', 'vm', 'a')
    expect(described.stdout).toMatch(/^Name: +a$/m)
    expect(described.stdout).toMatch(/Ready +True/)
    expect(described.stdout).toMatch(/Normal +Running +runs with pid \d+/)
    expect((await lab.cli('events')).stdout).toMatch(/Normal +Running +virtualmachine\/b /)

    await lab.create(tiny('broken', { cpu: { model: 'no-such-model' } }))
    await lab.sees('broken', 'has ended', ({ status }) => status?.lastExit !== undefined)
    expect(await lab.cli('logs', 'broken')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("unable to find CPU model 'no-such-model'"),
    })
    expect((await lab.vm('broken')).status?.lastExit?.message).toContain('no-such-model')
    expect(await lab.cli('delete', 'vm', 'broken')).toMatchObject({ code: 0 })

    const explained = await lab.cli('explain', 'vm.spec.disks')
    expect(explained.stdout).toMatch(/size/)
    expect((await lab.cli('orphans')).stderr).toContain('No orphans')
  })
})

interface Followed {
  readonly child: ReturnType<Lab['spawn']>
  readonly text: string
  readonly closed: Promise<unknown>
}

/** Starts a command, on a terminal where it wants one, and keeps what it says. */
function begin(command: string, args: readonly string[]): Followed & { code: () => Promise<unknown> } {
  const child = lab.spawn(command, args)
  const closed = once(child, 'close')
  const seen = { child, text: '', closed, code: async () => (await closed)[0] }
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk: Buffer) => {
      seen.text += chunk.toString()
    })
  return seen
}

describe('when the server restarts', () => {
  test('wait and get -w go on, and a console says which of the two ended', async () => {
    const console = (name: string) => begin('script', ['-qec', `${program} console ${name}`, '/dev/null'])
    const [first, second] = [console('a'), console('a')]
    const waiting = begin(program, ['wait', 'vm', 'd', '--for=delete', '--timeout=60s'])
    const watch = begin(program, ['get', 'vms', '-w'])
    await lab.until(
      'all have begun',
      () =>
        [first, second].every(({ text }) => text.includes('Connected')) &&
        watch.text.includes('\nd ') &&
        waiting.text.includes('d: '),
    )
    await lab.restart('SIGKILL')
    for (const one of [first, second]) {
      expect(await one.code()).toBe(1)
      expect(one.text).toMatch(
        /the console of a closed: the (server went away|connection to the server broke)/,
      )
      expect(one.text).not.toMatch(/Left|1006/)
    }
    await lab.cli('delete', 'vm', 'd')
    await waiting.closed
    expect(waiting.text).toContain(`${vm('d')} condition met`)
    const killed = console('c')
    await lab.until('it is connected', () => killed.text.includes('Connected'))
    process.kill((await lab.vm('c')).status?.process?.pid ?? 0, 'SIGKILL')
    expect(await killed.code()).toBe(1)
    expect(killed.text).toMatch(/the console of c closed: (the machine stopped|its QEMU ended)/)
    const third = console('b')
    await lab.until('it is connected', () => third.text.includes('Connected'))
    await lab.cli('stop', 'b')
    expect(await third.code()).toBe(1)
    expect(third.text).toMatch(/the console of b closed: the machine stopped\s+b is Stop/)
    await lab.until('the table follows', () => /^b +Stopped /m.test(watch.text))
    expect(watch.text).toContain('trying again')
    watch.child.kill('SIGINT')
    await watch.closed
  })
})

test.concurrent.each([
  [2, ['frobnicate']],
  [2, []],
  [2, ['get']],
  [2, ['get', 'nonsense']],
  [2, ['get', 'vms', '-o', 'xml']],
  [2, ['apply']],
  [2, ['wait', 'vm', 'a']],
  [1, ['get', 'vm', 'missing']],
  [1, ['delete', 'vm', 'missing']],
  [1, ['start', 'a']],
  [1, ['wait', 'vm', 'a', '--for=condition=Ready=False', '--timeout=100ms']],
  [1, ['apply', '-f', '/nonexistent.yaml']],
  [1, ['get', 'vms', '--server', '127.0.0.1:1']],
  [0, ['help']],
  [0, ['version']],
])('exit code %i: %j', async (code, args) => {
  const ran = await lab.cli(...args)
  expect(ran.code).toBe(code)
  expect(ran.stderr === '').toBe(code === 0)
})

describe('the real kubectl, as the printed kubeconfig has it,', () => {
  // A file, not <(…): some wrappers of kubectl read it twice.
  const kubectl = (args: string, input = '') =>
    lab.run('kubectl', ['--kubeconfig', join(lab.dir, 'kubeconfig'), ...args.split(' ')], input)

  test('applies, gets, describes, waits and deletes', { timeout: 300_000 }, async () => {
    file('kubeconfig', (await lab.cli('kubeconfig')).stdout)
    const applied = await kubectl('apply -f -', yaml('k'))
    expect(applied).toEqual(done(`${vm('k')} created\n`))
    expect((await kubectl('wait vm/k --for=condition=Ready --timeout=60s')).stdout).toContain('condition met')
    expect((await kubectl('get vms')).stdout).toMatch(/^k +Running +lab +1 +32Mi +0 +\d+s$/m)
    expect((await kubectl('describe vm k')).stdout).toMatch(/Events:[\s\S]*runs with pid/)
    expect(await kubectl('delete vm k')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('deleted'),
    })
    const missing = await kubectl('get vm k')
    expect(missing).toMatchObject({ code: 1, stderr: expect.stringContaining('"k" not found') })
  })
})

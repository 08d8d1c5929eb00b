import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { masked, runFenceCommand, secretsIn } from '../../src/host/fence-command.ts'

let dir: string
let agent: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'pv-fence-'))
  agent = join(dir, 'fence_test')
  return () => rmSync(dir, { recursive: true })
})

/** A fence agent of which each action is a piece of shell. */
function write(actions: { off?: string; status?: string }): void {
  const { off = 'exit 0', status = 'exit 2' } = actions
  const script = `#!/bin/sh
for last; do :; done
echo "$last" >> ${dir}/calls
case "$last" in
--action=off) ${off} ;;
--action=status) ${status} ;;
*) exit 9 ;;
esac
`
  writeFileSync(agent, script, { mode: 0o755 })
}

const fence = (more: { args?: string[]; timeoutMs?: number; signal?: AbortSignal } = {}) =>
  runFenceCommand({
    command: [agent, '--ip=bmc', ...(more.args ?? [])],
    timeoutMs: more.timeoutMs ?? 20_000,
    ...(more.signal && { signal: more.signal }),
  })

const calls = () => readFileSync(join(dir, 'calls'), 'utf8').trim().split('\n')

/** Whether a process, by the pid it wrote into a file, is gone; a zombie is. */
function gone(file: string): boolean {
  try {
    const pid = readFileSync(join(dir, file), 'utf8').trim()
    return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return existsSync(join(dir, file))
  }
}

describe('the power state alone counts', () => {
  test.each([
    ['off succeeded, status says off', {}, { state: 'off' }],
    ['off failed, status says off', { off: 'echo no >&2; exit 1' }, { state: 'off' }],
    ['off succeeded, status says on', { status: 'exit 0' }, { state: 'failed', reason: 'LiedOff' }],
    ['off failed, status says on', { off: 'exit 1', status: 'exit 0' }, { reason: 'CommandFailed' }],
    ['status says nothing', { status: 'echo lost >&2; exit 1' }, { reason: 'CommandFailed' }],
    ['status is ended by a signal', { status: 'kill -9 $$' }, { reason: 'CommandFailed' }],
  ])('%s', async (_, actions, expected) => {
    write(actions)
    expect(await fence()).toMatchObject(expected)
    expect(calls()).toEqual(['--action=off', '--action=status'])
  })

  test('what was said is shown, on one line and bounded', async () => {
    write({
      off: 'head -c 100000 /dev/zero | tr "\\0" x; exit 1',
      status: 'printf "no\\n  answer" >&2; exit 1',
    })
    const outcome = await fence()
    expect(outcome).toMatchObject({ why: expect.stringContaining('status: exit code 1, "no answer"') })
    expect(JSON.stringify(outcome).length).toBeLessThan(1_000)
  })

  test('a program that is not there, and none at all', async () => {
    const none = await runFenceCommand({ command: ['/no/such/agent', '--password=x'], timeoutMs: 5_000 })
    expect(none).toMatchObject({ reason: 'CommandMissing', why: expect.stringContaining('/no/such/agent') })
    expect(await runFenceCommand({ command: [], timeoutMs: 5_000 })).toMatchObject({
      reason: 'CommandMissing',
    })
  })
})

describe('a command that hangs', () => {
  test('is killed with all it started; the power state is asked for nevertheless', async () => {
    write({ off: `sleep 600 & echo $! > ${dir}/child; echo $$ > ${dir}/self; wait` })
    const outcome = await fence({ timeoutMs: 1_500 })
    expect(outcome).toMatchObject({ state: 'off', seen: expect.stringContaining('longer than') })
    await vi.waitFor(() => expect([gone('self'), gone('child')]).toEqual([true, true]), 10_000)
  })

  test('in status proves nothing', async () => {
    write({ status: 'sleep 600' })
    expect(await fence({ timeoutMs: 1_500 })).toMatchObject({ reason: 'CommandFailed' })
  })

  test('one that leaves something behind is over nevertheless, and nothing is left', async () => {
    write({ status: `sleep 600 & echo $! > ${dir}/child; exit 2` })
    expect(await fence()).toMatchObject({ state: 'off' })
    await vi.waitFor(() => expect(gone('child')).toBe(true), 10_000)
  })

  test('even where what it leaves has a session of its own and holds its output', async () => {
    const child = `${dir}/child`
    const leave = `setsid -f sh -c 'echo $$ > ${child}; exec sleep 300'`
    write({ status: `${leave}; until [ -s ${child} ]; do :; done; exit 2` })
    try {
      expect(await fence({ timeoutMs: 25_000 })).toMatchObject({ state: 'off' })
    } finally {
      process.kill(Number(readFileSync(child, 'utf8')), 'SIGKILL')
    }
  })

  test('ends when the leader does', async () => {
    write({ off: `echo $$ > ${dir}/self; sleep 600` })
    const stop = new AbortController()
    const running = fence({ signal: stop.signal })
    const ended = expect(running).rejects.toThrow('no longer leader')
    await vi.waitFor(() => readFileSync(join(dir, 'self')), 10_000)
    stop.abort(new Error('no longer leader'))
    await ended
    await vi.waitFor(() => expect(gone('self')).toBe(true), 10_000)
    expect(calls()).toEqual(['--action=off'])
  })
})

describe('secrets', () => {
  test.each([
    [['--password=hunter2', '--ip=a'], ['hunter2']],
    [['--passwd', 'hunter2'], ['hunter2']],
    [['-p', 'hunter2', '-l', 'admin'], ['hunter2']],
    [['-phunter2'], ['hunter2']],
    [['passwd=hunter2'], ['hunter2']],
    [['--snmp-priv-passwd=a=b'], ['a=b']],
    [['--password-script=/etc/p', '--plug=1', '--ip=x', '--port=3'], []],
    [['--password', '--ip=x'], []],
  ])('in %j', (args, secrets) => {
    expect(secretsIn(args)).toEqual(secrets)
  })

  test('the longer one is masked first', () => {
    expect(masked('abcd ab', ['ab', 'abcd', ''])).toBe('*** ***')
  })

  test('are shown neither in what is seen nor in what failed', async () => {
    write({ off: 'echo "$@"; exit 1', status: 'echo "bad login: hunter2" >&2; exit 1' })
    const shown = JSON.stringify(await fence({ args: ['--password=hunter2'] }))
    expect(shown).not.toContain('hunter2')
    expect(shown).toContain('--password=***')
  })
})

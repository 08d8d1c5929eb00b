import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { inheritable, run, spawnDetached } from '../../src/host/exec.ts'

describe('run', () => {
  test('gives what the program wrote, and no shell sees the arguments', async () => {
    expect(await run('printf', ['%s', '$HOME; `id`'])).toEqual({ stdout: '$HOME; `id`', stderr: '' })
    expect((await run('cat', [], { input: 'text' })).stdout).toBe('text')
    expect((await run('true', [], { input: 'x'.repeat(1 << 20) })).stdout).toBe('')
  })

  test('a failure carries what the program said', async () => {
    const failing = run('sh', ['-c', 'echo why >&2; exit 3'])
    await expect(failing).rejects.toMatchObject({ code: 'CommandFailed', message: /exit code 3: why/ })
    await expect(run('no-such-program', [])).rejects.toMatchObject({ code: 'CommandMissing' })
  })

  test('a deadline and a signal end it, even where a grandchild holds its pipes', async () => {
    const stuck = ['-c', 'sleep 5 & sleep 5']
    await expect(run('sh', stuck, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'Timeout' })
    const stop = new AbortController()
    const running = run('sh', stuck, { signal: stop.signal })
    stop.abort(new Error('enough'))
    await expect(running).rejects.toThrow('enough')
    await expect(run('true', [], { signal: stop.signal })).rejects.toThrow('enough')
  })

  test('output is bounded', async () => {
    const flood = run('yes', [], { maxBuffer: 10_000 })
    await expect(flood).rejects.toMatchObject({ code: 'CommandOutputTooLong' })
    let seen = 0
    const followed = await run('head', ['-c', '200000', '/dev/zero'], {
      maxBuffer: 1000,
      onStdout: (text) => {
        seen += text.length
      },
    })
    expect([seen, followed.stdout.length]).toEqual([200_000, 1000])
  })

  test('what the kernel refuses is an error like any other', async () => {
    // One argument may have 128 KiB (execve(2)); Node throws this one instead of telling it by an event.
    const long = ['x'.repeat(200_000)]
    await expect(run('true', long)).rejects.toMatchObject({ code: 'CommandFailed', message: /cannot be run/ })
    const output = openSync('/dev/null', 'a')
    onTestFinished(() => closeSync(output))
    await expect(spawnDetached('true', long, { output })).rejects.toMatchObject({ code: 'CommandFailed' })
  })
})

function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'pv-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  return dir
}

describe('what a program gets from us', () => {
  test('no file descriptor that this process has open, even one without close-on-exec', async () => {
    const dir = folder()
    const script = join(dir, 'child.ts')
    const exec = join(import.meta.dirname, '../../src/host/exec.ts')
    writeFileSync(
      script,
      `import { closeSync, openSync, readFileSync } from 'node:fs'
       import { inheritable, run, spawnDetached } from ${JSON.stringify(exec)}
       const keep = setInterval(() => {}, 1000)
       const fds = inheritable()
       const list = ['-c', 'ls -l /proc/self/fd']
       const { stdout } = await run('sh', list)
       const output = openSync(${JSON.stringify(join(dir, 'out'))}, 'w')
       const child = await spawnDetached('sh', list, { output })
       closeSync(output)
       await child.exited
       clearInterval(keep)
       const again = readFileSync(${JSON.stringify(join(dir, 'out'))}, 'utf8')
       console.log(JSON.stringify({ fds, stdout, again }))`,
    )
    // Inherited without close-on-exec, as some libraries open their files. (Node itself shuts those below 16.)
    const secret = openSync(join(dir, 'secret'), 'w')
    const stdio = ['ignore' as const, 'pipe' as const, 'inherit' as const]
    const given = spawnSync(process.execPath, [script], {
      stdio: [...stdio, ...Array.from({ length: 28 }, () => 'ignore' as const), secret],
      encoding: 'utf8',
    })
    closeSync(secret)
    const { fds, stdout, again } = JSON.parse(given.stdout)
    expect(fds).toContain(31)
    for (const listing of [stdout, again]) {
      expect(listing).toMatch(/ 31 -> \/dev\/null/)
      expect(listing).not.toContain('secret')
    }
  })

  test('this process itself leaks nothing that it opened', () => {
    const before = inheritable()
    const fd = openSync('/dev/null', 'r')
    expect(inheritable()).toEqual(before)
    closeSync(fd)
  })

  test('no secret of the environment, and messages that are not translated', async () => {
    process.env['AWS_SECRET_ACCESS_KEY'] = 'secret'
    process.env['LC_MESSAGES'] = 'de_DE.UTF-8'
    onTestFinished(() => {
      delete process.env['AWS_SECRET_ACCESS_KEY']
      delete process.env['LC_MESSAGES']
    })
    const { stdout } = await run('env', [])
    const names = stdout
      .trim()
      .split('\n')
      .map((line) => line.split('=')[0])
    expect(names).toEqual(expect.arrayContaining(['PATH', 'LC_ALL']))
    expect(names).not.toContain('AWS_SECRET_ACCESS_KEY')
    expect(names).not.toContain('LC_MESSAGES')
    const path = join(folder(), 'env')
    const output = openSync(path, 'w')
    await (await spawnDetached('env', [], { output })).exited
    closeSync(output)
    expect(readFileSync(path, 'utf8')).not.toContain('secret')
  })

  test('a umask that keeps others out, without changing ours', async () => {
    const ours = process.umask()
    expect((await run('sh', ['-c', 'umask'])).stdout.trim()).toBe('0077')
    expect(process.umask()).toBe(ours)
  })
})

describe('a detached process', () => {
  test('leads a session of its own, writes to its file, and its end is told', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'pv-'))
    onTestFinished(() => rmSync(dir, { recursive: true }))
    const output = openSync(join(dir, 'log'), 'a')
    const child = await spawnDetached('sh', ['-c', 'ps -o sid= -p $$; exit 7'], { output })
    expect(await child.exited).toEqual({ exitCode: 7 })
    expect(readFileSync(join(dir, 'log'), 'utf8').trim()).toBe(String(child.pid))
    await expect(spawnDetached('no-such-program', [], { output })).rejects.toMatchObject({
      code: 'CommandMissing',
    })
  })
})

import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { run, spawnDetached } from '../../src/host/exec.ts'

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

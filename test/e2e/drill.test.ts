import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..', '..')
const program = join(root, 'bin', 'plasmavmc')
const runbook = () => readFileSync(join(root, 'docs', 'runbook.md'), 'utf8')

test('a drill of one mode measures it, tells what goes on, and leaves the runbook alone', async () => {
  const before = runbook()
  const { stdout, stderr } = await run(program, ['drill', '--only', 'QEMU killed', '-o', 'json', '--write'])
  expect(JSON.parse(stdout)).toMatchObject({
    rows: [
      {
        ...{ mode: 'QEMU killed', group: 'one-host' },
        outcome: { detectedMs: expect.any(Number), recoveredMs: expect.any(Number), manual: 'none' },
      },
    ],
    witness: { twins: [] },
  })
  expect(stderr).toMatch(/drill: 1\/1 one-host: QEMU killed: detected \d/)
  expect(stderr).toContain('stays as it is: not every row was played')
  expect(runbook()).toBe(before)
})

test('who may make no namespaces is told which rows are not played, why, and what to do; exit code 1', async () => {
  const words = ['drill', '--only', 'QEMU killed', 'guard dead', '-o', 'json']
  // A user namespace in which we are root, and that owns neither the machine's mounts nor its network.
  const refused = run('unshare', ['--user', '--map-root-user', program, ...words])
  const error = await refused.then(
    () => undefined,
    (failure: { code: number; stdout: string; stderr: string }) => failure,
  )
  expect(error?.code).toBe(1)
  expect(error?.stderr).toMatch(
    /the rows of cluster can't be played: network namespaces can't be made: .+\n.+CAP_/,
  )
  expect(JSON.parse(error?.stdout ?? '')).toMatchObject({
    rows: [
      { mode: 'QEMU killed', outcome: { recoveredMs: expect.any(Number) } },
      { mode: 'guard dead', notPlayed: [{ what: expect.any(String), hint: expect.any(String) }] },
    ],
  })
})

test('an unknown mode is refused with the names of those there are', async () => {
  const refused = run(program, ['drill', '--only', 'meteor'])
  await expect(refused).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('QEMU killed') })
})

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '..', '..')
const program = join(root, 'bin', 'plasmavmc')
const runbook = () => readFileSync(join(root, 'docs', 'runbook.md'), 'utf8')

test('a drill of one mode measures it and leaves the runbook alone', async () => {
  const before = runbook()
  const { stdout } = await promisify(execFile)(program, ['drill', 'QEMU killed', '-o', 'json'])
  expect(JSON.parse(stdout)).toEqual([
    {
      mode: 'QEMU killed',
      outcome: expect.objectContaining({ detectedMs: expect.any(Number), recoveredMs: expect.any(Number) }),
    },
  ])
  expect(runbook()).toBe(before)
})

test('an unknown mode is refused with the names of those there are', async () => {
  const refused = promisify(execFile)(program, ['drill', 'meteor'])
  await expect(refused).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('QEMU killed') })
})

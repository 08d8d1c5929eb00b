import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Lab, program } from './lab.ts'

let lab: Lab

beforeEach(async () => {
  lab = await Lab.start()
})

afterEach(() => lab.close())

test('a second server on the same run directory is refused, whatever its data directory', async () => {
  const flags = ['--data-dir', join(lab.dir, 'other'), '--run-dir', lab.runDir, '--listen', '127.0.0.1:1']
  expect(await lab.run(program, ['serve', ...flags])).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(
      new RegExp(`${lab.runDir} is in use by the process ${lab.serverPid}[^]*--run-dir`),
    ),
  })
})

/** What must hold before a commit: style, types, generated files, architecture. One line each; exit code 1 if any fails. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const bin = (name: string) => join(root, 'node_modules', '.bin', name)

/** No check takes longer than this on a small machine; one that does hangs. */
const deadlineMs = 300_000

const checks: readonly (readonly [string, string, readonly string[]])[] = [
  ['style', bin('biome'), ['ci', '--colors=off', '--diagnostic-level=warn']],
  ['types', bin('tsc'), ['-p', '.']],
  ['generated files', process.execPath, ['scripts/gen.ts', '--check']],
  ['architecture', bin('vitest'), ['run', '--project', 'unit', 'test/architecture.test.ts']],
]

/** Output is kept and indented: colours of the tools would only be in the way. */
const env = { ...process.env, NO_COLOR: '1' }

let failed = 0
for (const [name, command, args] of checks) {
  const started = performance.now()
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', timeout: deadlineMs, env })
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  const ok = result.status === 0
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name} (${seconds} s)`)
  if (ok) continue
  failed++
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}${result.error?.message ?? ''}`.trim()
  console.log(output.replaceAll(/^/gm, '     '))
}
process.exitCode = failed > 0 ? 1 : 0

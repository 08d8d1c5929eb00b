/**
 * Records what QEMUs tell of their monitor (query-qmp-schema) into test/fixtures/qmp/schema-VERSION.json.gz, for the
 * tests to hold src/qmp against. Run it when a new QEMU is to be supported:
 *   sh scripts/with-node.sh scripts/record-qmp-schema.ts [QEMU-PROGRAM…]
 */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { systemClock } from '../src/lib/clock.ts'
import { messageOf } from '../src/lib/errors.ts'
import { connectQmp } from '../src/qmp/connect.ts'

const fixtures = fileURLToPath(new URL('../test/fixtures/qmp/', import.meta.url))
const deadlineMs = 30_000

/** Starts the program without a machine, asks it, and ends it. @returns what was written */
async function record(program: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'qmp-schema-'))
  const socket = join(folder, 'qmp.sock')
  const args = ['-S', '-nodefaults', '-display', 'none', '-machine', 'none']
  const child = spawn(program, [...args, '-qmp', `unix:${socket},server=on,wait=off`], { stdio: 'inherit' })
  const failed = new AbortController()
  child.once('error', (error) => failed.abort(error))
  child.once('exit', (code, signal) => failed.abort(new Error(`it ended with ${code ?? signal}`)))
  try {
    const session = await connectQmp(socket, {
      clock: systemClock,
      waitMs: deadlineMs,
      handshakeMs: deadlineMs,
      signal: failed.signal,
    })
    const schema = await session.execute('query-qmp-schema')
    const { qemu, package: from } = session.version
    session.close()
    const version = `${qemu.major}.${qemu.minor}.${qemu.micro}`
    const file = join(fixtures, `schema-${version}.json.gz`)
    const text = JSON.stringify({ version, package: from, schema })
    writeFileSync(file, gzipSync(text, { level: 9 }))
    return `${file}: ${schema.length} entities of QEMU ${version}`
  } finally {
    child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

mkdirSync(fixtures, { recursive: true })
const programs = process.argv.slice(2)
for (const program of programs.length > 0 ? programs : ['qemu-system-x86_64']) {
  try {
    console.log(await record(program))
  } catch (error) {
    console.error(`${program}: ${messageOf(error)}`)
    process.exitCode = 1
  }
}

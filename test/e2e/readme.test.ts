import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import { Lab } from './lab.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
  lab.installGuest()
})
afterAll(() => lab.close())

/** The blocks of the README that are to be pasted, as one script for the lab's server, folders and ports. */
async function tour(): Promise<string> {
  const text = readFileSync('README.md', 'utf8')
  const blocks = [...text.matchAll(/^```\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block)
  const example = readFileSync('deploy/examples/port-forward.yaml', 'utf8')
  const [tcp, udp] = [await freePort(), await freePort()]
  const forwards = join(lab.dir, 'port-forward.yaml')
  writeFileSync(
    forwards,
    example.replace('hostPort: 8080', `hostPort: ${tcp}`).replace('hostPort: 5353', `hostPort: ${udp}`),
  )
  return blocks
    .filter((block) => /^(bin\/plasmavmc|kubectl|kill|DATA)/m.test(block))
    .join('\n')
    .replaceAll('deploy/examples/port-forward.yaml', forwards)
    .replaceAll('kubeconfig.yaml', join(lab.dir, 'kubeconfig.yaml'))
    .replaceAll('127.0.0.1:7443', lab.address)
    .replace(/^DATA=.*$/m, `DATA=${lab.dataDir}`)
    .replace('bin/plasmavmc console', 'echo hostname | bin/plasmavmc console')
    .replace('kubectl plasmavmc console', 'echo hostname | kubectl plasmavmc console')
}

test('every line of the README’s tour works when pasted in order', { timeout: 300_000 }, async () => {
  expect(await lab.cli('apply', '-f', 'deploy/examples/hello.yaml')).toMatchObject({ code: 0 })
  await lab.running('hello')
  const script = await tour()
  expect(script.match(/^(bin\/plasmavmc|kubectl|curl|kill|echo) /gm)?.length).toBeGreaterThanOrEqual(16)
  const ran = await lab.run('bash', ['-ex', '-c', script])
  expect(ran).toMatchObject({ code: 0 })
  expect(ran.stdout).toMatch(/^hello +Running +lab +1 +256Mi +1 /m)
  expect(ran.stdout).toMatch(/Killed +virtualmachine\/hello +QEMU was ended by SIGKILL/)
  expect(ran.stdout).toContain('virtualmachine.plasmavmc.io "web" deleted')
  expect(ran.stdout).toMatch(/^\{"apiVersion":"plasmavmc\.io\/v1alpha1","kind":"VirtualMachine"/m)
  expect(ran.stdout).toContain('virtualmachine.plasmavmc.io "hello" deleted')
})

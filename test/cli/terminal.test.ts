import { afterEach, expect, test } from 'vitest'
import { commands } from '../../src/cli/program.ts'
import { type FakeServer, fakeServer, reply, runCommand } from './fake-server.ts'

let server: FakeServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

const tooWide = (text: string) => text.split('\n').filter((line) => line.length > 80)

test('help fits into 80 columns, on a terminal and in a file', { timeout: 60_000 }, async () => {
  for (const name of commands.map(([one]) => one)) {
    for (const options of [{ terminal: 80 }, {}]) {
      const { code, out } = await runCommand(['help', name], options)
      expect([name, code, tooWide(out)]).toEqual([name, 0, []])
    }
  }
})

test('auth can-i --list fits into 80 columns, and loses nothing', async () => {
  const verbs = ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch']
  const urls = ['/api', '/api/*', '/apis', '/apis/*', '/openapi', '/openapi/*', '/version']
  const group = 'authorization.k8s.io'
  const answer = {
    resourceRules: [
      { verbs: ['create'], apiGroups: [group], resources: ['selfsubjectaccessreviews'] },
      { verbs, apiGroups: ['plasmavmc.io'], resources: ['virtualmachines'], resourceNames: ['web'] },
    ],
    nonResourceRules: [{ verbs: ['get'], nonResourceURLs: urls }],
  }
  server = await fakeServer((_, r) => reply(r, 201, { status: answer }))
  const { out } = await server.run(['auth', 'can-i', '--list'], { terminal: 80, env: { NO_COLOR: '1' } })
  expect(tooWide(out)).toEqual([])
  expect(out).not.toContain('…')
  for (const word of [
    ...verbs,
    ...urls,
    `selfsubjectaccessreviews.${group}`,
    'virtualmachines.plasmavmc.io/web',
  ])
    expect(out).toContain(word)
  const { out: piped } = await server.run(['auth', 'can-i', '--list'])
  expect(piped).toMatch(/^RESOURCES +NON-RESOURCE URLS +RESOURCE NAMES +VERBS\n/)
})

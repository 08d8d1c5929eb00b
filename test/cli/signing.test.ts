import { afterEach, beforeEach, expect, test } from 'vitest'
import { authenticate } from '../../src/auth/authenticate.ts'
import { sha256Hex } from '../../src/auth/hash.ts'
import { bootstrapIdentity } from '../../src/auth/identity.ts'
import { type FakeServer, fakeServer, refuse, reply, type Seen } from './fake-server.ts'

/** The verdict of the server's own verification on what arrived. */
function verdict({ method, url, headers, body }: Seen) {
  const key = { secret: 'secret', identity: bootstrapIdentity }
  return authenticate(
    { method, rawUrl: url, headers, bodySha256: sha256Hex(body) },
    {
      secretOf: (id) => (id === 'PVMCTEST' ? key : undefined),
      now: Date.now(),
      region: 'local',
      service: 'plasmavmc',
    },
  )
}

let server: FakeServer
beforeEach(async () => {
  server = await fakeServer((seen, response) =>
    verdict(seen).ok ? reply(response, 200, { items: [] }) : refuse(response, 401, 'Unauthorized', 'no'),
  )
})
afterEach(() => server.close())

test.each([
  [['get', 'vms', '-l', 'a in (b, c+d),e!=f~g']],
  [['get', 'vms', '--field-selector', "metadata.name=ü'*()!"]],
  [['get', 'vm', 'a b', '-n', 'x/ü', '-o', 'json']],
  [['start', 'web']],
  [['events', '-A']],
])('the server verifies what %j signed', async (argv) => {
  const { code, err } = await server.run(argv)
  expect({ code, err: err.replace(/^No resources.*\n/, '') }).toEqual({ code: 0, err: '' })
})

test('a wrong secret is refused with advice', async () => {
  const env = { PLASMAVMC_ACCESS_KEY_ID: 'PVMCTEST', PLASMAVMC_SECRET_ACCESS_KEY: 'wrong' }
  const { code, err } = await server.run(['get', 'vms'], { env })
  expect({ code, err }).toEqual({
    code: 1,
    err: expect.stringMatching(/\(Unauthorized\): no\nthe access key/),
  })
})

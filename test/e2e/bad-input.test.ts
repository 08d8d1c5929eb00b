import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Lab, machinesPath, tiny } from './lab.ts'

// One server for the whole file: what is refused must leave it as it was.
let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
})
afterAll(() => lab.close())

const head = 'apiVersion: plasmavmc.io/v1alpha1\nkind: VirtualMachine\nmetadata:\n  name: bad\n'

function file(name: string, content: string | Buffer): string {
  const path = join(lab.dir, name)
  writeFileSync(path, content)
  return path
}

const names = async () =>
  (await lab.client.json<{ items: { metadata: { name: string } }[] }>('GET', machinesPath)).items.map(
    (vm) => vm.metadata.name,
  )

/** The standard error of a command that must fail with 1, say nothing else and leave no machine named bad. */
async function refusal(...args: readonly string[]): Promise<string> {
  const ran = await lab.cli(...args)
  expect({ code: ran.code, stdout: ran.stdout }).toEqual({ code: 1, stdout: '' })
  expect(ran.stderr).not.toMatch(/^ {4}at |Error: /m)
  return ran.stderr
}

describe('a manifest', () => {
  test.each<[string, string | Buffer, RegExp]>([
    ['malformed', `${head}spec:\n  memory: [1\n  disks: {\n`, /m\.yaml:7:3: .*\n {2}7 \| {3}disks: \{\n/],
    [
      'indented by a tab',
      'kind: VirtualMachine\nmetadata:\n\tname: x\n',
      /m\.yaml:3:1: Tabs are not allowed/,
    ],
    [
      'with a key twice',
      `${head}spec: {memory: 1Gi, memory: 2Gi}\n`,
      /m\.yaml:5:21: Map keys must be unique/,
    ],
    ['that is text', 'just words\n', /m\.yaml:1: this document is no object/],
    ['that is a picture', Buffer.from([0xff, 0xd8, 0xff, 0xe0]), /m\.yaml is no text in UTF-8/],
    ['that is empty', '', /no manifests in .*m\.yaml/],
    ['of more than 10 MB', Buffer.alloc(10_000_001, '#'), /m\.yaml has more than 10 MB/],
    [
      'of an unknown kind',
      head.replace('Machine', 'Machin'),
      /m\.yaml:2: no matches for kind "VirtualMachin".*\n.*mean kind VirtualMachine/,
    ],
    [
      'of an unknown version',
      head.replace('v1alpha1', 'v9'),
      /m\.yaml:2: no matches .* "plasmavmc\.io\/v9"\n.*plasmavmc\.io\/v1alpha1/,
    ],
    [
      'with a number for a name',
      head.replace('bad', '12'),
      /m\.yaml:4: metadata\.name must be a string, not 12\nput it in quotes/,
    ],
    [
      'with a name that is no DNS label',
      head.replace('bad', 'Web_1'),
      /m\.yaml:4: metadata\.name: Invalid value: "Web_1"/,
    ],
    ['for a namespace that is not there', `${head}  namespace: nowhere\n`, /namespaces "nowhere" not found/],
    [
      'with unknown fields',
      `${head}spec:\n  memroy: 1Gi\n  cpu: {core: 2}\n`,
      /m\.yaml:6: spec\.memroy: unknown field; did you mean memory\?\n.*m\.yaml:7: spec\.cpu\.core: unknown field; did you mean cores/,
    ],
    [
      'with a wrong type',
      `${head}spec:\n  cpu:\n    cores: two\n`,
      /m\.yaml:7: spec\.cpu\.cores: Invalid value: "two": must be an integer/,
    ],
    [
      'with a wrong range',
      `${head}spec:\n  cpu: {threads: 99}\n  memory: 1\n`,
      /m\.yaml:6: spec\.cpu\.threads: .*at most 16\n/,
    ],
    [
      'with a quantity that is none',
      `${head}spec: {memory: lots}\n`,
      /spec\.memory: Invalid value: "lots": must be a quantity of bytes such as 512Mi/,
    ],
    [
      'with one disk name twice',
      `${head}spec:\n  disks:\n    - {name: a, size: 1Mi}\n    - {name: a, size: 1Mi}\n`,
      /m\.yaml:8: spec\.disks\[1\]\.name: Duplicate value: "a"/,
    ],
    [
      'with an image from a URL and no sum',
      `${head}spec: {disks: [{name: a, image: {source: 'http://x/y'}}]}\n`,
      /spec\.disks\[0\]\.image\.sha256: Required value/,
    ],
  ])('%s is refused with its place', async (_what, text, message) => {
    const before = await names()
    expect(await refusal('apply', '-f', file('m.yaml', text))).toMatch(message)
    expect(await names()).toEqual(before)
  })

  test('with unknown fields is taken with --validate=warn, which says so', async () => {
    const manifest = file(
      'warn.yaml',
      `${head.replace('bad', 'warned')}spec: {runStrategy: Halted, memroy: 1Gi}\n`,
    )
    const ran = await lab.cli('apply', '-f', manifest, '--validate=warn')
    expect(ran).toMatchObject({ code: 0, stderr: 'Warning: unknown field "spec.memroy"\n' })
    expect((await lab.vm('warned')).spec).not.toHaveProperty('memroy')
  })

  test('is refused as a Status with -o json', async () => {
    const error = await refusal('apply', '-o', 'json', '-f', file('m.yaml', `${head}spec: {memory: lots}\n`))
    const causes = [expect.objectContaining({ reason: 'FieldValueInvalid', field: 'spec.memory' })]
    expect(JSON.parse(error)).toMatchObject({
      kind: 'Status',
      code: 422,
      reason: 'Invalid',
      details: { causes },
    })
  })

  test('is refused by the real kubectl, too', async () => {
    const config = file('kubeconfig', (await lab.cli('kubeconfig')).stdout)
    const manifest = file('m.yaml', `${head}spec: {memory: lots, cpu: {threads: 99}}\n`)
    const ran = await lab.run('kubectl', ['--kubeconfig', config, 'apply', '-f', manifest])
    expect(ran.code).toBe(1)
    expect(ran.stderr).toMatch(/The VirtualMachine "bad" is invalid:/)
    expect(ran.stderr).toMatch(/spec\.cpu\.threads: Invalid value: 99: must be at most 16/)
  })
})

/** What curl, signing by itself, gets for a request on the machines. */
async function curl(
  method: string,
  path: string,
  type: string,
  body: string,
): Promise<Record<string, unknown>> {
  const text = readFileSync(join(lab.dataDir, 'credentials'), 'utf8')
  const part = (name: string) => new RegExp(`${name} *= *(\\S+)`).exec(text)?.[1] ?? ''
  const ran = await lab.run('curl', [
    ...['-sS', '--cacert', join(lab.dataDir, 'pki', 'ca.crt'), '--aws-sigv4', 'aws:amz:local:plasmavmc'],
    ...['--user', `${part('aws_access_key_id')}:${part('aws_secret_access_key')}`, '-X', method],
    ...['-H', `content-type: ${type}`, '--data-binary', `@${file('body', body)}`],
    `https://${lab.address}${machinesPath}${path}`,
  ])
  return JSON.parse(ran.stdout) as Record<string, unknown>
}

test.each<[string, string, string, string, string, number, string, RegExp]>([
  [
    'a body that is no JSON',
    'POST',
    '',
    'application/json',
    '{"kind":',
    400,
    'BadRequest',
    /not JSON: Unexpected end/,
  ],
  [
    'a body that is no YAML',
    'POST',
    '',
    'application/yaml',
    'a: [1\nb: 2',
    400,
    'BadRequest',
    /not YAML.*line 2, column 1/,
  ],
  [
    'a body of 10 MB',
    'POST',
    '',
    'application/json',
    '#'.repeat(10_000_000),
    413,
    'RequestEntityTooLarge',
    /too large|larger/,
  ],
  ['an unknown content type', 'POST', '', 'text/plain', 'x', 415, 'UnsupportedMediaType', /text\/plain/],
  [
    'a JSON patch that does not apply',
    'PATCH',
    '/base',
    'application/json-patch+json',
    '[{"op":"remove","path":"/spec/nope"}]',
    422,
    'Invalid',
    /\/spec\/nope/,
  ],
  [
    'a JSON patch whose test fails',
    'PATCH',
    '/base',
    'application/json-patch+json',
    '[{"op":"test","path":"/spec/runStrategy","value":"Always"}]',
    422,
    'Invalid',
    /Halted/,
  ],
  [
    'a merge patch to nonsense',
    'PATCH',
    '/base',
    'application/merge-patch+json',
    '{"spec":{"memory":"x"}}',
    422,
    'Invalid',
    /spec\.memory/,
  ],
  [
    'a patch of a stale version',
    'PATCH',
    '/base',
    'application/merge-patch+json',
    '{"metadata":{"resourceVersion":"1"},"spec":{"memory":"1Gi"}}',
    409,
    'Conflict',
    /has been modified/,
  ],
  [
    'a patch with an unknown field, strictly',
    'PATCH',
    '/base?fieldValidation=Strict',
    'application/merge-patch+json',
    '{"spec":{"memroy":"1Gi"}}',
    400,
    'BadRequest',
    /unknown field "spec\.memroy"/,
  ],
  [
    'another name than that of the path',
    'PUT',
    '/base',
    'application/json',
    JSON.stringify(tiny('other')),
    400,
    'BadRequest',
    /name of the object/,
  ],
])('%s is refused to curl', async (_what, method, path, type, body, code, reason, message) => {
  if (!(await names()).includes('base')) await lab.create(tiny('base', { runStrategy: 'Halted' }))
  const before = await lab.sees('base', 'is at rest', ({ status }) => status?.phase === 'Stopped')
  const status = await curl(method, path, type, body)
  expect(status).toMatchObject({ kind: 'Status', status: 'Failure', code, reason })
  expect(status['message']).toMatch(message)
  expect(await lab.vm('base')).toEqual(before)
})

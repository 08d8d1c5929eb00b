import { expect, test } from 'vitest'
import { runCommand } from './fake-server.ts'

test.each([
  [['get', 'vms', '-o', 'foo'], /formats are: wide, json, yaml, name, jsonpath=/],
  [
    ['get', 'vms', '-o', 'jsonpath={range .items[*]}{.metadata.name}{end}'],
    /jsonpath=\{\.items\[0\].*or kubectl/,
  ],
  [['get', 'vms', '--sort-by', '{..x}'], /--sort-by \.status\.restarts/],
  [['wait', 'vm', 'a', '--for=jsonpath={..x}'], /jsonpath=\{\.status\.phase\}=Running/],
  [['apply', 'foo.yaml'], /name files with -f: apply -f foo\.yaml/],
  [['apply', 'foo.yaml', '-f', 'a b.yaml'], /apply -f 'a b\.yaml' -f foo\.yaml/],
] as [string[], RegExp][])('%j is refused with advice that fits', async (argv, advice) => {
  const { code, err } = await runCommand(argv)
  expect(err).toMatch(advice)
  if (argv[0] === 'get') expect(err).not.toContain('=Running')
  expect(code).toBe(2)
})

test('nothing on standard input is called so', async () => {
  const { code, err } = await runCommand(['apply', '-f', '-'])
  expect({ code, err }).toEqual({
    code: 1,
    err: expect.stringMatching(/no manifests in standard input\nwhat is piped/),
  })
})

import { expect, test } from 'vitest'
import { readManifests } from '../../src/cli/manifests.ts'
import { parse } from '../../src/resources/parse.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

test('every example is valid and has no unknown field', async () => {
  const sources = await readManifests(['deploy/examples'], false, { stdin: process.stdin })
  expect(sources.length).toBeGreaterThanOrEqual(4)
  for (const { at, manifest } of sources) {
    const parsed = parse(VirtualMachine, manifest)
    expect({ at, ok: parsed.ok, unknown: parsed.ok ? parsed.unknown : parsed.causes }).toEqual({
      at,
      ok: true,
      unknown: [],
    })
  }
})

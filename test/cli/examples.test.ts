import { expect, test } from 'vitest'
import { kindOfSource, readManifests } from '../../src/cli/manifests.ts'
import { findKind } from '../../src/resources/kinds.ts'
import { parse } from '../../src/resources/parse.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'

const sources = await readManifests(['deploy/examples'], false, { stdin: process.stdin })

test.each(sources.map((source) => [source.at, source] as const))(
  '%s is valid to the letter',
  (_at, source) => {
    const kind = findKind(kindOfSource(source).kind)
    if (!kind) throw new Error('a kind that the server does not know')
    const parsed = parse(kind, source.manifest)
    expect(parsed.ok ? parsed.unknown : parsed.causes).toEqual([])
  },
)

test('examples can be applied together: no name and no forwarded port is there twice', () => {
  const names = sources.map(({ manifest }) => `${manifest.kind}/${manifest.metadata.name}`)
  expect(names).toEqual([...new Set(names)])
  const ports = sources.flatMap(({ manifest }) => {
    const parsed = manifest.kind === 'VirtualMachine' ? parse(VirtualMachine, manifest) : undefined
    if (!parsed?.ok) return []
    return parsed.object.spec.networks.flatMap((n) =>
      (n.user?.forwards ?? []).map((f) => `${f.protocol} ${f.hostAddress}:${f.hostPort}`),
    )
  })
  expect(ports.length).toBeGreaterThan(2)
  expect(ports).toEqual([...new Set(ports)])
})

test('examples show what the README promises', () => {
  const shown = JSON.stringify(sources.map(({ manifest }) => manifest))
  const wanted = [
    '"kernel"',
    '"cloudInit"',
    '"uefi"',
    '"forwards"',
    '"bridge"',
    '"tap"',
    '"watchdog"',
    '"pvpanic"',
  ]
  for (const word of [...wanted, '"RerunOnFailure"', '"format":"raw"', '"StoragePool"'])
    expect(shown).toContain(word)
})

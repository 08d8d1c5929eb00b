import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import * as models from '@kubernetes/client-node'
import { expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { loadConfig } from '../../src/config.ts'
import { toCrd } from '../../src/resources/crd.ts'
import { group } from '../../src/resources/define.ts'
import { kinds } from '../../src/resources/kinds.ts'
import { roleRights } from '../../src/resources/rights.ts'

type Json = Record<string, unknown>
interface Doc extends Json {
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string }
}

const root = resolve('deploy/kubernetes')

/** What kubectl makes of a kustomization. */
function built(folder: string): Doc[] {
  const text = execFileSync('kubectl', ['kustomize', join(root, folder)], { encoding: 'utf8' })
  return parseAllDocuments(text).map((doc) => doc.toJS() as Doc)
}

const modelOf = (name: string) =>
  (models as unknown as Record<string, { getAttributeTypeMap?: () => Attribute[] } | undefined>)[name]

interface Attribute {
  readonly name: string
  readonly baseName: string
  readonly type: string
}

const scalars: Record<string, string> = { string: 'string', number: 'number', boolean: 'boolean' }

/** Where a value is not what the API's own schema, as the client library has it, says. */
function wrongIn(type: string, value: unknown, path: string): string[] {
  const array = /^(?:Set|Array)<(.*)>$/.exec(type)?.[1]
  if (array !== undefined) {
    if (!Array.isArray(value)) return [`${path}: is no list`]
    return value.flatMap((item, i) => wrongIn(array, item, `${path}[${i}]`))
  }
  const map = /^\{ \[key: string\]: (.*); \}$/.exec(type)?.[1]
  if (map !== undefined)
    return Object.entries(value as Json).flatMap(([key, item]) => wrongIn(map, item, `${path}.${key}`))
  const scalar = scalars[type]
  if (scalar !== undefined) return typeof value === scalar ? [] : [`${path}: is no ${scalar}`]
  const attributes = modelOf(type)?.getAttributeTypeMap?.()
  if (!attributes) return []
  if (typeof value !== 'object' || value === null) return [`${path}: is no ${type}`]
  return Object.entries(value).flatMap(([key, item]) => {
    const known = attributes.find(({ baseName }) => baseName === key)
    return known
      ? wrongIn(known.type, item, `${path}.${key}`)
      : [`${path}.${key}: ${type} has no such member`]
  })
}

const wrong = (doc: Doc) => wrongIn(`V1${doc.kind}`, doc, `${doc.kind} ${doc.metadata.name}`)

test.each(['base', 'overlays/agents-outside', 'overlays/kvm-nodes'])(
  '%s builds, and holds nothing that Kubernetes’ types do not have',
  (folder) => {
    const docs = built(folder)
    expect(docs.flatMap(wrong)).toEqual([])
    const names = docs.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`)
    expect(new Set(names).size).toBe(names.length)
    expect(names.includes('DaemonSet plasmavmc-system/plasmavmc-agent')).toBe(
      folder !== 'overlays/agents-outside',
    )
  },
)

test('the check finds what Kubernetes would not take', () => {
  const [daemon] = built('base').filter(({ kind }) => kind === 'DaemonSet')
  const text = JSON.stringify(daemon)
  for (const [from, to, found] of [
    ['"hostPID":true', '"hostPid":true', /hostPid: V1PodSpec has no such member/],
    ['"hostPID":true', '"hostPID":"yes"', /hostPID: is no boolean/],
    ['"mountPath":"/dev"', '"mountpath":"/dev"', /volumeMounts\[\d\]\.mountpath: V1VolumeMount/],
  ] as const)
    expect(wrong(JSON.parse(text.replace(from, to)) as Doc).join()).toMatch(found)
})

test('has every kind of ours, and the rights of each role for the account that its pods run as', () => {
  const docs = built('base')
  const of = (kind: string) => docs.filter((doc) => doc.kind === kind)
  const crds = kinds.filter((kind) => kind.group === group).map((kind) => toCrd(kind).metadata.name)
  expect(
    of('CustomResourceDefinition')
      .map(({ metadata }) => metadata.name)
      .sort(),
  ).toEqual(crds.sort())
  const accounts = of('ServiceAccount').map(({ metadata }) => metadata.name)
  expect(accounts.sort()).toEqual(roleRights.map(({ role }) => `plasmavmc-${role}`).sort())
  for (const binding of [...of('ClusterRoleBinding'), ...of('RoleBinding')] as (Doc & {
    roleRef: { kind: string; name: string }
    subjects: { name: string; namespace: string }[]
  })[]) {
    const { roleRef, subjects } = binding
    expect(of(roleRef.kind).map(({ metadata }) => metadata.name)).toContain(roleRef.name)
    for (const { name, namespace } of subjects) {
      expect(accounts).toContain(name)
      expect(namespace).toBe('plasmavmc-system')
    }
  }
  const all = JSON.stringify([...of('ClusterRole'), ...of('Role')])
  expect(all).not.toContain('"*"')
  expect(all).not.toContain('secrets')
})

interface Probe {
  readonly httpGet: { readonly port: number | string; readonly path: string; readonly host?: string }
  readonly timeoutSeconds: number
}

interface Container {
  readonly image: string
  readonly args: readonly string[]
  readonly env: readonly { readonly name: string; readonly value?: string }[]
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[]
  readonly livenessProbe: Probe
  readonly readinessProbe: Probe
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[]
}

interface Pods {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly hostPID?: boolean
        readonly hostNetwork?: boolean
        readonly serviceAccountName: string
        readonly volumes: readonly { readonly name: string; readonly hostPath?: { readonly path: string } }[]
        readonly containers: readonly Container[]
      }
    }
  }
}

test('the pods are started with settings that the program takes, as the role of their account', () => {
  const pods = built('base').filter(({ kind }) => kind === 'DaemonSet' || kind === 'Deployment')
  expect(pods).toHaveLength(2)
  for (const doc of pods) {
    const { serviceAccountName, containers } = (doc as unknown as Pods).spec.template.spec
    const [{ args, env, image }] = containers as [Container]
    expect(image).toBe('plasmavmc:0.1.0')
    expect(args[0]).toBe('serve')
    const flags: Record<string, string> = {}
    for (let i = 1; i < args.length; i += 2)
      flags[(args[i] ?? '').slice(2).replace(/-(.)/g, (_, c: string) => c.toUpperCase())] = args[i + 1] ?? ''
    const given = Object.fromEntries(env.map(({ name, value = 'from-a-field' }) => [name, value]))
    const config = loadConfig(flags, given, { uid: 0, machine: 'm' })
    expect(config).toMatchObject({ store: 'kubernetes', fencing: 'none', hostName: 'from-a-field' })
    expect(`plasmavmc-${config.roles.join()}`).toBe(serviceAccountName)
  }
})

test('probes ask the port that the program serves health on, and only readiness hangs on the store', () => {
  const pods = built('base').filter(({ kind }) => kind === 'DaemonSet' || kind === 'Deployment')
  for (const doc of pods as unknown as Pods[]) {
    const { containers, hostNetwork = false } = doc.spec.template.spec
    const [{ env, ports = [], livenessProbe, readinessProbe }] = containers as [Container]
    const given = Object.fromEntries(env.map(({ name, value = 'from-a-field' }) => [name, value]))
    const flags = { store: 'kubernetes', roles: 'agent' }
    const { metricsListen } = loadConfig(flags, given, { uid: 0, machine: 'm' })
    const portOf = ({ httpGet: { port } }: Probe) =>
      typeof port === 'number' ? port : ports.find(({ name }) => name === port)?.containerPort
    expect([livenessProbe, readinessProbe].map(portOf)).toEqual(Array(2).fill(metricsListen?.port))
    expect([livenessProbe, readinessProbe].map(({ httpGet }) => httpGet.path)).toEqual(['/livez', '/readyz'])
    // On the host's network the pod's address is the host's, where nobody else is to read it.
    const host = hostNetwork ? '127.0.0.1' : undefined
    expect([livenessProbe, readinessProbe].map(({ httpGet }) => httpGet.host)).toEqual([host, host])
    expect(metricsListen?.host).toBe(host ?? '0.0.0.0')
    // The store has 2 s to answer.
    expect(readinessProbe.timeoutSeconds).toBeGreaterThan(2)
  }
})

test('what a machine needs when its pod is gone is the host’s', () => {
  const [daemon] = built('base').filter(({ kind }) => kind === 'DaemonSet') as unknown as [Pods]
  const { hostPID, hostNetwork, volumes, containers } = daemon.spec.template.spec
  expect({ hostPID, hostNetwork }).toEqual({ hostPID: true, hostNetwork: true })
  const mounts = containers[0]?.volumeMounts ?? []
  for (const path of ['/var/lib/plasmavmc', '/run/plasmavmc', '/dev', '/run/systemd', '/run/dbus']) {
    const { name } = mounts.find(({ mountPath }) => mountPath === path) ?? { name: 'none' }
    // By the same path, which is what launch records and command lines say.
    expect(volumes.find((volume) => volume.name === name)?.hostPath?.path, path).toBe(path)
  }
})

test('the image is made from what it names', () => {
  const text = readFileSync(join(root, 'Dockerfile'), 'utf8')
  const kept = readFileSync(join(root, 'Dockerfile.dockerignore'), 'utf8').match(/(?<=^!).*/gm) ?? []
  const copied = [...text.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, words = '']) =>
    words.split(' '),
  )
  expect(copied.sort()).toEqual([...kept].sort())
  // busctl, and what the agent runs.
  for (const name of ['systemd', 'qemu-system-x86', 'qemu-utils', 'iproute2'])
    expect(text).toContain(` ${name} `)
})

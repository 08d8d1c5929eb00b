import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { program, uidOf } from '../lab.ts'
import { figure } from './figures.ts'
import type { Host } from './lab.ts'
import { manual, small } from './machines.ts'
import { cluster } from './shared.ts'

const fenceAll = async (fencing: Readonly<Record<string, unknown>>) => {
  for (const { name } of cluster.hosts) await cluster.patchHost(name, { spec: { fencing } })
}
beforeAll(() => fenceAll({ mode: 'none' }))
afterAll(() => fenceAll({ mode: 'guard', command: null, timeoutSeconds: null }))

/** A fence agent that does what `lines` say; `$action` is off or status. */
function fenceAgent(...lines: readonly string[]): string {
  const file = join(cluster.dir, 'fence-agent')
  const parse = [
    '#!/bin/sh',
    'for word; do case $word in --action=*) action=$(echo "$word" | cut -d = -f 2) ;; esac; done',
  ]
  writeFileSync(file, `${[...parse, `echo "$action" >>${file}.calls`, ...lines].join('\n')}\n`)
  chmodSync(file, 0o755)
  return file
}

const fenced = (host: Host, what: string, reason: RegExp, message = /(?:)/) =>
  cluster.until(what, async () => {
    const found = (await cluster.hostObjects()).find(({ metadata }) => metadata.name === host.name)
    return found?.status?.conditions.find(
      (one) => one.type === 'Fenced' && reason.test(one.reason ?? '') && message.test(one.message ?? ''),
    )
  })

test('a host without fencing is lost: nothing moves until a person says that it is off', async () => {
  const host = await cluster.follower()
  await cluster.createOn(host, { ...small('a') }, manual('b'))
  const other = cluster.others(host)[0]!
  const early = await other.cli('host', 'fence', host.name, '--confirm-off')
  expect(early.code).toBe(1)
  expect(early.stderr).toMatch(/host h\d is not off: it renewed its lease/)
  await host.powerOff()
  await cluster.sees('a', 'is Unknown', ({ status }) => status?.phase === 'Unknown')
  const { status } = await cluster.vm('a')
  expect(status?.hostName).toBe(host.name)
  await cluster.until('the lease is silent for long enough', async () => {
    const { code } = await other.cli('host', 'fence', host.name, '--confirm-off')
    // Each try is a process of its own.
    if (code !== 0) await pause(1_000)
    return code === 0
  })
  const began = performance.now()
  const after = await cluster.running('a', cluster.others(host))
  figure('a person said that the host is off: its machine runs elsewhere', began)
  expect((await cluster.evidence(after.status?.evidence ?? '')).spec.proof).toBe('Operator')
  expect((await cluster.vm('b')).status).toMatchObject({ phase: 'Unknown', hostName: host.name })
  await host.boot()
  await host.serve()
  await cluster.running('b')
  expect((await cluster.vm('a')).status?.hostName).not.toBe(host.name)
  expect(cluster.qemus(uidOf(after))).toHaveLength(1)
})

test('a fence command that hangs, fails or lies moves nothing; one after which the power reads off does', async () => {
  const host = await cluster.follower()
  const command = [fenceAgent('sleep 600')]
  await cluster.patchHost(host.name, { spec: { fencing: { mode: 'command', command, timeoutSeconds: 1 } } })
  await cluster.createOn(host, small('c'))
  await host.powerOff()
  await fenced(host, 'the hang is told', /./, /second|time|took/i)
  fenceAgent('exit 1')
  await fenced(host, 'the failure is told', /./, /exit|status|code/i)
  // It claims to have switched it off, while the power is on.
  fenceAgent('exit 0')
  await fenced(host, 'the lie is told', /./, /\bon\b/i)
  expect((await cluster.vm('c')).status?.hostName).toBe(host.name)
  fenceAgent('[ "$action" = off ] || exit 2')
  const began = performance.now()
  const after = await cluster.running('c', cluster.others(host))
  figure('the fence command works again: the machine runs elsewhere', began)
  expect((await cluster.evidence(after.status?.evidence ?? '')).spec.proof).toBe('Command')
  await host.boot()
  await host.serve()
  await cluster.ready(host)
})

test('another host by the name of one that lives is refused, and says what to do', async () => {
  const [one, two] = cluster.hosts as [Host, Host]
  const dir = join(cluster.dir, 'twin')
  mkdirSync(dir)
  const place = ['--data-dir', join(dir, 'd'), '--run-dir', join(dir, 'r'), '--listen', '127.0.0.1:7444']
  const { code, stderr } = await two.run(
    program,
    'serve',
    ...place,
    '--host-name',
    one.name,
    ...cluster.flags,
  )
  expect(code).toBe(1)
  expect(stderr).toMatch(/--host-name: another host goes by the name h1: it renews its lease/)
  await cluster.ready(one)
})

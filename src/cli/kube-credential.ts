import { readFileSync } from 'node:fs'
import { run } from '../host/exec.ts'
import type { Clock } from '../lib/clock.ts'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import type { Io } from './io.ts'
import type { KubeChoice } from './kube-file.ts'

const execTimeoutMs = 60_000
/** A token that has less left is asked for again. */
const refreshBeforeMs = 5_000

interface ExecSpec {
  readonly command?: string
  readonly args?: readonly string[] | null
  readonly env?: readonly { readonly name: string; readonly value: string }[] | null
  readonly apiVersion?: string
  readonly installHint?: string
  readonly provideClusterInfo?: boolean
  readonly interactiveMode?: string
}

interface ExecCredential {
  readonly status?: { readonly token?: string; readonly expirationTimestamp?: string }
}

/**
 * The bearer token of a kubeconfig's user, from its exec plugin (client.authentication.k8s.io), its file or its text.
 * @param certified whether the connection says who it is, by a certificate: then no token is needed
 * @returns a function that asks again once the token is about to expire; undefined where there is no token
 */
export function bearerOf(
  { user, cluster, context }: KubeChoice,
  io: Pick<Io, 'env' | 'clock' | 'signal'>,
  certified: boolean,
): (() => Promise<string>) | undefined {
  const { token, tokenFile, exec } = user
  if (typeof tokenFile === 'string') return async () => readFileSync(tokenFile, 'utf8').trim()
  if (typeof token === 'string') return async () => token
  if (typeof exec === 'object' && exec !== null) return cached(() => execToken(exec, cluster, io), io.clock)
  if (certified) return undefined
  throw new PlasmaError(
    'BadKubeconfig',
    `the user of context "${context}" has neither a token nor an exec plugin nor a client certificate`,
    {
      hint: 'other ways to log in are not known here',
    },
  )
}

interface Token {
  readonly token: string
  /** Wall milliseconds; never where absent. */
  readonly expiresAt?: number
}

function cached(ask: () => Promise<Token>, clock: Clock): () => Promise<string> {
  let last: Token | undefined
  return async () => {
    if (!last || (last.expiresAt ?? Number.POSITIVE_INFINITY) - clock.now() < refreshBeforeMs)
      last = await ask()
    return last.token
  }
}

async function execToken(
  spec: ExecSpec,
  cluster: KubeChoice['cluster'],
  io: Pick<Io, 'env' | 'signal'>,
): Promise<Token> {
  const { command, args, env, apiVersion, installHint, provideClusterInfo, interactiveMode } = spec
  if (!command) throw new PlasmaError('BadKubeconfig', "the kubeconfig's exec plugin has no command")
  if (interactiveMode === 'Always') {
    throw new PlasmaError(
      'BadKubeconfig',
      `the exec plugin ${command} wants a terminal, which it can't have here`,
    )
  }
  const info = {
    ...{ kind: 'ExecCredential', apiVersion: apiVersion ?? 'client.authentication.k8s.io/v1' },
    spec: { interactive: false, ...(provideClusterInfo && { cluster }) },
  }
  const given = Object.fromEntries((env ?? []).map(({ name, value }) => [name, value]))
  try {
    const { stdout } = await run(command, args ?? [], {
      ...{ timeoutMs: execTimeoutMs, signal: io.signal },
      env: { ...io.env, ...given, KUBERNETES_EXEC_INFO: JSON.stringify(info) },
    })
    return tokenOf(command, JSON.parse(stdout) as ExecCredential)
  } catch (error) {
    if (error instanceof PlasmaError && error.code === 'BadCredential') throw error
    throw new PlasmaError('BadCredential', `the exec plugin of the kubeconfig failed: ${messageOf(error)}`, {
      ...(installHint && { hint: installHint }),
      cause: error,
    })
  }
}

function tokenOf(command: string, { status }: ExecCredential): Token {
  if (!status?.token) throw new PlasmaError('BadCredential', `the exec plugin ${command} gave no token`)
  const { token, expirationTimestamp } = status
  return { token, ...(expirationTimestamp && { expiresAt: Date.parse(expirationTimestamp) }) }
}

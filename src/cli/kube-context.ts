import { readFileSync } from 'node:fs'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import type { Access, TlsTrust } from './access.ts'
import { type Connection, impersonationOf, parseAddress } from './connection.ts'
import type { GlobalOptions, Io } from './io.ts'
import { bearerOf } from './kube-credential.ts'
import { type KubeChoice, kubeFiles, readKubeconfig } from './kube-file.ts'

type Members = KubeChoice['cluster']

function pem(members: Members, name: string): string | undefined {
  const data = members[`${name}-data`]
  if (typeof data === 'string' && data !== '') return Buffer.from(data, 'base64').toString()
  const file = members[name]
  if (typeof file !== 'string' || file === '') return undefined
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new PlasmaError('BadKubeconfig', `${name} of the kubeconfig can't be read: ${messageOf(cause)}`, {
      cause,
    })
  }
}

function trustOf({ cluster, user }: KubeChoice): TlsTrust {
  const [ca, cert, key] = [
    pem(cluster, 'certificate-authority'),
    pem(user, 'client-certificate'),
    pem(user, 'client-key'),
  ]
  const servername = cluster['tls-server-name']
  return {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && key !== undefined && { cert, key }),
    ...(typeof servername === 'string' && servername !== '' && { servername }),
    ...(cluster['insecure-skip-tls-verify'] === true && { rejectUnauthorized: false }),
  }
}

function accessOf(
  choice: KubeChoice,
  { flags, as }: Pick<Connection, 'flags' | 'as'>,
  io: Pick<Io, 'env' | 'clock' | 'signal'>,
): Access {
  const server = String(choice.cluster['server'] ?? '')
  const url = URL.parse(server)
  if (url?.protocol !== 'https:') {
    throw new PlasmaError(
      'BadKubeconfig',
      `the server of context "${choice.context}" is no https URL: "${server}"`,
    )
  }
  if (choice.cluster['proxy-url']) {
    throw new PlasmaError(
      'BadKubeconfig',
      `context "${choice.context}" asks for a proxy, which is not supported here`,
    )
  }
  const trust = trustOf(choice)
  const bearer = bearerOf(choice, io, trust.cert !== undefined)
  return {
    connection: { ...parseAddress(url.origin), dataDir: '', flags, ...(as && { as }) },
    trust,
    prefix: url.pathname.replace(/\/+$/, ''),
    prove: async ({ headers }) => ({
      ...headers,
      ...(bearer && { authorization: `Bearer ${await bearer()}` }),
    }),
  }
}

/** Whom the kubeconfig's user is to be: its `as` and `as-groups`. @throws UsageError */
function impersonatedBy({ user }: KubeChoice): Connection['as'] {
  const { as, 'as-groups': groups } = user
  if (typeof as !== 'string' || as === '') return undefined
  return impersonationOf({ as, asGroup: Array.isArray(groups) ? groups.map(String) : [] })
}

/**
 * The same Io for a command that reaches its server by a kubeconfig: the context's namespace is the default one. What
 * is wrong with the kubeconfig is said once the server is asked for something, since not every command does.
 */
export function withKubeconfig(options: GlobalOptions, io: Io): Io {
  const { kubeconfig, context } = options
  const flags = [kubeconfig && `--kubeconfig ${kubeconfig}`, context && `--context ${context}`]
  try {
    const choice = readKubeconfig(kubeFiles(kubeconfig, io.env), context)
    return {
      ...io,
      env: { ...io.env, PLASMAVMC_NAMESPACE: choice.namespace ?? 'default' },
      access: () => {
        const as = impersonationOf(options) ?? impersonatedBy(choice)
        return accessOf(choice, { flags: flags.filter(Boolean).join(' '), ...(as && { as }) }, io)
      },
    }
  } catch (error) {
    return {
      ...io,
      access: () => {
        throw error
      },
    }
  }
}

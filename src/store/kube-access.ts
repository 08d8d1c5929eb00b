import { readFileSync } from 'node:fs'
import type { RequestOptions } from 'node:https'
import { dirname, resolve } from 'node:path'
import { KubeConfig } from '@kubernetes/client-node'
import { parse } from 'yaml'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import type { KubeAccess, KubeCredential } from './kube-http.ts'

/** A credential is asked for anew after this long, ms: a file with a token may have changed. */
const credentialGoodMs = 10_000
/** A plugin that has not answered for this long, ms, is started once more: it may wait for ever. */
const credentialLateMs = 60_000

/**
 * Who to ask and by what right, as a kubeconfig says, or the service account of the pod where there is none. Certificates,
 * tokens, token files and exec plugins are the library's work; what it gives is used for connections of our own.
 * @throws PlasmaError `BadConfig` that names the file and what is wrong with it
 */
export function openKubeAccess(
  kubeconfig: string | undefined,
  now: () => number = () => performance.now(),
): KubeAccess {
  let config = load(kubeconfig)
  let known:
    | { readonly at: number; pending: boolean; readonly credential: Promise<KubeCredential> }
    | undefined
  return {
    server: serverOf(config, kubeconfig),
    credential: () => {
      const age = known ? now() - known.at : Number.POSITIVE_INFINITY
      if (known && age < (known.pending ? credentialLateMs : credentialGoodMs)) return known.credential
      const asked = { at: now(), pending: true, credential: credentialOf(config) }
      known = asked
      asked.credential.then(
        () => {
          asked.pending = false
        },
        () => {
          if (known === asked) known = undefined
        },
      )
      return asked.credential
    },
    renew: () => {
      known = undefined
      try {
        config = load(kubeconfig)
      } catch {
        // Being rewritten just now: the one before counts until it can be read.
      }
    },
  }
}

function load(kubeconfig: string | undefined): KubeConfig {
  const config = new KubeConfig()
  if (kubeconfig === undefined) {
    config.loadFromCluster()
    return config
  }
  try {
    config.loadFromFile(kubeconfig)
  } catch (cause) {
    throw bad(kubeconfig, messageOf(cause), cause)
  }
  if (!config.getCurrentUser())
    throw bad(kubeconfig, `its current context, "${config.getCurrentContext()}", names no user that it has`)
  useTokenFile(config, kubeconfig)
  return config
}

/** The library knows the member `tokenFile` of a user by another name than kubectl writes it, and drops it. */
function useTokenFile(config: KubeConfig, kubeconfig: string): void {
  const { users } = parse(readFileSync(kubeconfig, 'utf8')) as { readonly users: readonly NamedUser[] }
  const user = config.getCurrentUser()
  const file = users.find(({ name }) => name === user?.name)?.user?.tokenFile
  if (!user || typeof file !== 'string' || file === '') return
  // As kubectl: the file counts before a token beside it, and is named from where the kubeconfig lies.
  const tokenFile = resolve(dirname(kubeconfig), file)
  Object.assign(user, { token: undefined, authProvider: { name: 'tokenFile', config: { tokenFile } } })
}

interface NamedUser {
  readonly name: string
  readonly user?: { readonly tokenFile?: unknown }
}

function serverOf(config: KubeConfig, kubeconfig: string | undefined): URL {
  const { server: text, proxyUrl } = config.getCurrentCluster() ?? {}
  if (proxyUrl) throw bad(kubeconfig, 'proxy-url is not supported: the API server must be reached directly')
  const url = text === undefined ? undefined : (URL.parse(text) ?? undefined)
  if (url?.protocol === 'https:') return url
  const why = text === undefined ? 'its context names no cluster that it has' : `${text} is no https URL`
  throw bad(kubeconfig, why)
}

async function credentialOf(config: KubeConfig): Promise<KubeCredential> {
  const given: RequestOptions = {}
  await config.applyToHTTPSOptions(given)
  const { auth, ca, cert, key, pfx, passphrase, rejectUnauthorized, servername } = given
  const headers: Record<string, string> = {}
  // A token that was written by an editor ends with its line.
  for (const [name, value] of Object.entries(given.headers ?? {}))
    if (value !== undefined) headers[name.toLowerCase()] = String(value).trim()
  if (typeof auth === 'string' && headers['authorization'] === undefined)
    headers['authorization'] = `Basic ${Buffer.from(auth).toString('base64')}`
  return {
    headers,
    tls: {
      ...(ca !== undefined && { ca }),
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
      ...(pfx !== undefined && { pfx }),
      ...(passphrase !== undefined && { passphrase }),
      ...(servername !== undefined && { servername }),
      ...(rejectUnauthorized !== undefined && { rejectUnauthorized }),
    },
  }
}

function bad(kubeconfig: string | undefined, why: string, cause?: unknown): PlasmaError {
  const what = kubeconfig === undefined ? 'the service account' : `--kubeconfig: ${kubeconfig}`
  return new PlasmaError('BadConfig', `${what}: ${why}`, {
    hint: "'plasmavmc kubeconfig' on the server writes one for it",
    cause,
  })
}

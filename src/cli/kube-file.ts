import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, isAbsolute, join, resolve } from 'node:path'
import { parse } from 'yaml'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'

type Members = Readonly<Record<string, unknown>>

/** One context of kubeconfig files, its parts looked up. Files that it names are absolute. */
export interface KubeChoice {
  readonly context: string
  readonly namespace?: string
  readonly cluster: Members
  readonly user: Members
}

const isMembers = (value: unknown): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Members of clusters and users that name files, beside the kubeconfig where they are relative. */
const fileMembers = ['certificate-authority', 'client-certificate', 'client-key', 'tokenFile']

function absolute(members: Members, folder: string): Members {
  const paths = fileMembers.flatMap((name) => {
    const path = members[name]
    return typeof path === 'string' && path !== '' && !isAbsolute(path) ? [[name, join(folder, path)]] : []
  })
  const { exec } = members
  const command = isMembers(exec) ? exec['command'] : undefined
  const local = typeof command === 'string' && command.includes('/') && !isAbsolute(command)
  return {
    ...members,
    ...Object.fromEntries(paths),
    ...(local && { exec: { ...(exec as Members), command: join(folder, command) } }),
  }
}

/** The files that kubectl would read: the flag's alone; else those of KUBECONFIG; else ~/.kube/config. */
export function kubeFiles(
  flag: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  if (flag !== undefined && flag !== '') return [resolve(flag)]
  const named = (env['KUBECONFIG'] ?? '').split(delimiter).filter((file) => file !== '')
  return named.length > 0
    ? named.map((file) => resolve(file))
    : [join(env['HOME'] || homedir(), '.kube', 'config')]
}

const noKubeconfig = (file: string, why: string, cause?: unknown) =>
  new PlasmaError('BadKubeconfig', `${file} is no kubeconfig: ${why}`, {
    hint: "make one with 'plasmavmc kubeconfig > FILE', and name it by --kubeconfig or KUBECONFIG",
    cause,
  })

function read(file: string, required: boolean): Members | undefined {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' && !required) return undefined
    throw new PlasmaError('BadKubeconfig', `kubeconfig ${file} can't be read: ${messageOf(error)}`, {
      hint: "make one with 'plasmavmc kubeconfig > FILE', and name it by --kubeconfig or KUBECONFIG",
      cause: error,
    })
  }
  try {
    // What else YAML has to say of a file that is no YAML goes nowhere.
    const config: unknown = parse(text, { logLevel: 'error' }) ?? {}
    if (isMembers(config) && (config['kind'] ?? 'Config') === 'Config') return config
  } catch (cause) {
    throw noKubeconfig(file, `it is not YAML: ${messageOf(cause).split('\n')[0]?.replace(/:$/, '')}`, cause)
  }
  throw noKubeconfig(file, 'it is not an object of kind Config')
}

/** The first of that name in any of the files: kubectl's rule for merging them. */
function named(configs: readonly (readonly [Members, string])[], list: string, member: string, name: string) {
  for (const [config, folder] of configs) {
    const entries: unknown = config[list]
    if (!Array.isArray(entries)) continue
    const found = entries.find((one) => isMembers(one) && one['name'] === name) as Members | undefined
    if (found) return absolute(isMembers(found[member]) ? found[member] : {}, folder)
  }
  throw new PlasmaError('BadKubeconfig', `the kubeconfig has no ${member} "${name}"`, {
    hint: "see 'kubectl config get-contexts'",
  })
}

/** What a context of some kubeconfig files says, merged as kubectl does. @throws PlasmaError `BadKubeconfig` */
export function readKubeconfig(files: readonly string[], context: string | undefined): KubeChoice {
  const configs = files.flatMap((file) => {
    const config = read(file, files.length === 1)
    return config ? [[config, dirname(file)] as const] : []
  })
  const current = configs.map(([config]) => config['current-context']).find((one) => Boolean(one))
  const name = context ?? current
  if (typeof name !== 'string') {
    throw new PlasmaError('BadKubeconfig', `no current context in ${files.join(', ')}`, {
      hint: "choose one with --context, or with 'kubectl config use-context'",
    })
  }
  const chosen = named(configs, 'contexts', 'context', name)
  const { namespace } = chosen
  return {
    context: name,
    ...(typeof namespace === 'string' && namespace !== '' && { namespace }),
    cluster: named(configs, 'clusters', 'cluster', String(chosen['cluster'])),
    user: named(configs, 'users', 'user', String(chosen['user'])),
  }
}

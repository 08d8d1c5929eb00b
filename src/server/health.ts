import type { Check } from './deps.ts'

/** Where health is asked for, as of kube-apiserver; `/healthz` is the old name of `/livez`. */
export const healthPaths: ReadonlySet<string> = new Set(['/livez', '/readyz', '/healthz'])

/**
 * The answer at one of {@link healthPaths}. Only `/readyz` asks anything of the parts: a server that answers lives, and one
 * that were ended because its store is away would be no nearer to it.
 */
export async function healthAt(
  path: string,
  verbose: boolean,
  ready: () => readonly Check[] | Promise<readonly Check[]>,
): Promise<{ readonly code: number; readonly text: string }> {
  return healthText(path.slice(1), path === '/readyz' ? await ready() : [], verbose)
}

/**
 * The answer of a health endpoint in Kubernetes' words: `ok`, or with `verbose`, and wherever a check fails, every check
 * in a line of its own. 503 where one fails: load balancers know it as "not now".
 * @param endpoint such as `readyz`
 */
export function healthText(
  endpoint: string,
  checks: readonly Check[],
  verbose: boolean,
): { readonly code: number; readonly text: string } {
  const ok = checks.every((check) => check.ok)
  if (ok && !verbose) return { code: 200, text: 'ok' }
  const lines = [{ name: 'ping', ok: true }, ...checks].map(lineOf)
  return { code: ok ? 200 : 503, text: `${lines.join('')}${endpoint} check ${ok ? 'passed' : 'failed'}\n` }
}

function lineOf({ name, ok, message }: Check): string {
  // One line a check, whatever an error says.
  return ok
    ? `[+]${name} ok\n`
    : `[-]${name} failed: ${(message ?? 'not ready').replaceAll(/\s*\n\s*/g, ' ')}\n`
}

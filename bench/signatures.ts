import { FailedAttempts } from '../src/auth/attempts.ts'
import { authenticate } from '../src/auth/authenticate.ts'
import { emptySha256, sha256Hex } from '../src/auth/hash.ts'
import { fromRawHeaders } from '../src/auth/header-pairs.ts'
import { Replays } from '../src/auth/replays.ts'
import { presign, signRequest } from '../src/auth/sign.ts'
import { makeToken } from '../src/auth/token.ts'
import type { SignedRequest, VerifyOptions } from '../src/auth/verify.ts'
import type { Figure } from './stats.ts'
import { median, repeat } from './stats.ts'

const credentials = { accessKeyId: 'PVMCAAAAAAAAAAAAAAAA', secretAccessKey: 's'.repeat(40) }
const scope = { region: 'local', service: 'plasmavmc' }
const host = '127.0.0.1:7443'
const list = '/apis/plasmavmc.io/v1alpha1/namespaces/default/virtualmachines'

/** As a server gets it from node:http, with what clients send besides. */
function received(method: string, target: string, body: string): SignedRequest {
  const url = new URL(`https://${host}${target}`)
  const type = body === '' ? {} : { 'content-type': 'application/json' }
  const signed = signRequest({ method, url, headers: type, body, credentials, now: Date.now(), ...scope })
  const all = { ...signed, accept: 'application/json', 'user-agent': 'bench', connection: 'keep-alive' }
  const headers = fromRawHeaders(Object.entries(all).flat())
  return { method, rawUrl: target, headers, bodySha256: sha256Hex(body), address: '127.0.0.1' }
}

function options(): VerifyOptions {
  const key = { secret: credentials.secretAccessKey, identity: { name: 'admin', groups: [] } }
  const secretOf = (id: string) => (id === credentials.accessKeyId ? key : undefined)
  return { secretOf, now: Date.now(), ...scope, attempts: new FailedAttempts(), replays: new Replays() }
}

/** Verifications a second of processor time: what neighbours on the machine do does not count. */
async function rate(requests: readonly SignedRequest[], count: number): Promise<number> {
  const given = options()
  const once = () => {
    const began = process.cpuUsage()
    for (let i = 0; i < count; i += 1) {
      const verdict = authenticate(requests[i % requests.length]!, given)
      if (!verdict.ok) throw new Error(`${verdict.code}: ${verdict.message}`)
    }
    const { user, system } = process.cpuUsage(began)
    return (count * 1e6) / (user + system)
  }
  once()
  return median(await repeat(5, async () => once()))
}

/** Signatures verified a second and core: what every request costs before anything else is done. */
export async function signatures(): Promise<Figure[]> {
  const gets = Array.from({ length: 1000 }, (_, i) => received('GET', `${list}/vm-${i}`, ''))
  const lists = Array.from({ length: 1000 }, (_, i) =>
    received('GET', `${list}?labelSelector=app%20in%20%28a%2Cb%29&limit=${i}`, ''),
  )
  const tokens = Array.from({ length: 1000 }, (): SignedRequest => {
    const { token } = makeToken({ host, credentials, now: Date.now() })
    return {
      method: 'GET',
      rawUrl: list,
      headers: { authorization: `Bearer ${token}` },
      bodySha256: emptySha256,
    }
  })
  const urls = Array.from({ length: 1000 }, (_, i): SignedRequest => {
    const url = presign({
      url: new URL(`https://${host}${list}/vm-${i}`),
      credentials,
      now: Date.now(),
      ...scope,
      expiresSeconds: 60,
    })
    return { method: 'GET', rawUrl: url.pathname + url.search, headers: { host }, bodySha256: emptySha256 }
  })
  const perSecond = (value: number) => `${Math.round(value / 1000)} k/s`
  return [
    {
      what: 'signatures verified a second and core, empty body',
      value: perSecond(await rate(gets, 20_000)),
      goal: '≥ 30 k/s',
    },
    {
      what: 'the same with a query to bring in order',
      value: perSecond(await rate(lists, 20_000)),
      goal: '',
    },
    { what: 'presigned URLs', value: perSecond(await rate(urls, 20_000)), goal: '' },
    { what: 'bearer tokens', value: perSecond(await rate(tokens, 20_000)), goal: '' },
  ]
}

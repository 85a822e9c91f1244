/**
 * From a fingerprint to a trusted gateway: the root is fetched before anything is trusted and used
 * only if its SHA-256 is the one a person was given. RFC 7030 section 4.1.1 (bootstrap distribution).
 */
import { request as requestHttp, type ClientRequest, type RequestOptions } from 'node:http'
import { request } from 'node:https'
import { cacertsRequest, pinRoot, readCertificates } from '#est'
import { addressOf, dialTls, proxyFault, proxyOut } from './dial.ts'
import { CliError, usage } from './exit.ts'

const TIMEOUT_MS = 15_000
const BODY_MAX = 256 * 1024

export interface HttpAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: string
  /** The body as it came, where it may be other than text. */
  readonly bytes?: Uint8Array
}

export interface HttpCall {
  readonly method: string
  readonly url: URL
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** PEM of the root to trust; absent: nobody is asked who they are, and only public data may be sent. */
  readonly anchor?: string
}

/** One HTTPS exchange. Throws CliError `gateway.unreachable`, `gateway.untrusted`, `gateway.answer`, `proxy.*`. */
export async function exchange(call: HttpCall): Promise<HttpAnswer> {
  try {
    return await answerTo(await begin(call), call.body)
  } catch (cause) {
    throw unreachable(call.url, cause)
  }
}

async function begin({ url, method, headers = {}, anchor }: HttpCall): Promise<ClientRequest> {
  const options: RequestOptions = { method, headers: { ...headers }, timeout: TIMEOUT_MS }
  const trust = anchor === undefined ? { rejectUnauthorized: false } : { ca: anchor }
  if (proxyOut() === undefined) return request(url, { ...options, ...trust, agent: false })
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const socket = await dialTls(addressOf(url), { ...trust, ALPNProtocols: ['http/1.1'] }, signal)
  return requestHttp({
    ...options,
    createConnection: () => socket,
    path: `${url.pathname}${url.search}`,
    headers: { host: url.host, ...headers, connection: 'close' },
  })
}

async function answerTo(sent: ClientRequest, body: string | undefined): Promise<HttpAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>()
  sent.on('response', (answer) => {
    const chunks: Buffer[] = []
    let size = 0
    answer.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > BODY_MAX * 16) answer.destroy(new Error('the answer is too long'))
      else chunks.push(chunk)
    })
    answer.on('error', reject)
    answer.on('end', () => {
      const headers: Record<string, string | undefined> = {}
      for (const [name, value] of Object.entries(answer.headers))
        headers[name] = Array.isArray(value) ? value.join(', ') : value
      resolve({
        status: answer.statusCode ?? 0,
        headers,
        body: Buffer.concat(chunks).toString('utf8'),
      })
    })
  })
  sent.on('timeout', () => sent.destroy(new Error(`no answer for ${TIMEOUT_MS / 1000} s`)))
  sent.on('error', reject)
  sent.end(body)
  return await promise
}

/** A failure to connect, in words; the proxy's own first, else by the code of Node's or OpenSSL's error. */
export function unreachable(url: URL, cause: unknown): CliError {
  const atProxy = proxyFault(cause)
  if (atProxy !== undefined) return atProxy
  const code = codeOf(cause)
  const untrusted = /CERT|SELF_SIGNED|UNABLE_TO|ALTNAME|ISSUER/.test(code)
  const why = `${cause instanceof Error ? cause.message : String(cause)}${code === '' ? '' : ` (${code})`}`
  return new CliError(
    untrusted ? `${url.host} is not the gateway that was pinned` : `${url.host} cannot be reached`,
    {
      code: untrusted ? 'gateway.untrusted' : 'gateway.unreachable',
      exit: 'unreachable',
      why,
      next: untrusted
        ? 'compare the root fingerprint with your contact, then sign in again with --gateway and --ca-sha256'
        : 'check the address, the network and that the gateway runs; then repeat this',
    },
    { cause },
  )
}

/** The code of an error, or of the error inside it. */
function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  if ('code' in error && typeof error.code === 'string') return error.code
  return codeOf(error.cause)
}

/** The gateway's address as given: an https URL without path; throws usage. */
export function readGateway(text: string): URL {
  const url = URL.parse(text.includes('://') ? text : `https://${text}`)
  if (
    url?.protocol === 'https:' &&
    url.pathname === '/' &&
    url.search === '' &&
    url.username === ''
  )
    return url
  throw usage(
    `${JSON.stringify(text)} is not the address of a gateway`,
    'write it as https://gateway.example:8443, its port from 1 to 65535',
  )
}

/** The root whose SHA-256 is `sha256` (hex), as PEM. Throws CliError `gateway.untrusted` where the gateway has no such root. */
export async function fetchAnchor(gateway: URL, sha256: string): Promise<string> {
  if (!/^[0-9a-fA-F:]{64,95}$/.test(sha256))
    throw usage(
      '--ca-sha256 is not a SHA-256 fingerprint',
      'it is 64 hex digits; the gateway keeps it in ca-root.sha256',
    )
  const call = cacertsRequest()
  const url = new URL(call.path, gateway)
  const answer = readCertificates(
    await exchange({ method: call.method, url, headers: call.headers }),
  )
  if (answer.kind !== 'certificates')
    throw unreachable(url, new Error('the gateway did not send its certificates'))
  try {
    return toPem(pinRoot(answer.certificates, sha256))
  } catch (cause) {
    throw new CliError(
      `${gateway.host} is not the gateway of this fingerprint`,
      {
        code: 'gateway.untrusted',
        exit: 'unreachable',
        why: cause instanceof Error ? cause.message : String(cause),
        next: 'compare the fingerprint with your contact; if it is right, somebody is in between',
      },
      { cause },
    )
  }
}

function toPem(der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

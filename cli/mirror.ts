/** The gateway's log as a mirror reads it: the public format over HTTPS, each request signed by the mirror's own key. */
import { SignJWT } from 'jose'
import { fetch, type Response } from 'undici'
import { Problem } from '#api'
import { AuditError, type MirrorKeys, type MirrorSource } from '#audit'
import { Value } from 'typebox/value'
import { unreachable } from './anchor.ts'
import { CliError, type Exit } from './exit.ts'
import { openPinnedHttp } from './login/tls.ts'

/** An entry bundle is 256 events of at most 32 KiB, each behind its length. */
const ANSWER_MAX = 256 * (32 * 1024 + 2)
const PREFIX = '/api/v1/audit/log'

export interface MirrorSite {
  readonly gateway: URL
  /** PEM of the gateway's root. */
  readonly anchor: string
  /** The log's origin: what a signed request is good for. */
  readonly origin: string
  readonly keys: MirrorKeys
}

/**
 * The log at `gateway`. Calls reject with CliError: `gateway.unreachable`, `gateway.untrusted`, `gateway.answer`, or
 * the gateway's own code (`witness.refused`, `witness.conflict`); AuditError `mirror.other` where the gateway says that
 * its log has another name. Leaving the block closes the connections.
 */
export function openMirrorSource(site: MirrorSite): MirrorSource & AsyncDisposable {
  const http = openPinnedHttp(site.anchor, ANSWER_MAX)
  const kid = site.keys.vkeys[0]?.split('+')[1] ?? ''
  const send = async (method: 'GET' | 'POST', path: string, body?: string): Promise<Response> => {
    const url = new URL(`${PREFIX}${path}`, site.gateway)
    const proof = await new SignJWT({ htm: method, htu: `${url.pathname}${url.search}` })
      .setProtectedHeader({ alg: 'EdDSA', kid, typ: 'witness+jwt' })
      .setAudience(site.origin)
      .setIssuedAt()
      .sign(site.keys.ed25519)
    const headers = {
      authorization: `Witness ${proof}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    }
    let answer: Response
    try {
      answer = await fetch(url, {
        method,
        headers,
        redirect: 'error',
        dispatcher: http.agent,
        ...(body === undefined ? {} : { body }),
      })
    } catch (cause) {
      throw unreachable(url, cause)
    }
    if (answer.status === 200) return answer
    throw refusal(url, answer.status, await answer.text())
  }
  return {
    checkpoint: async () => await (await send('GET', '/checkpoint')).text(),
    tile: async (path) => new Uint8Array(await (await send('GET', `/${path}`)).arrayBuffer()),
    submit: async (note) => {
      await (await send('POST', '/cosignatures', JSON.stringify({ note }))).text()
    },
    [Symbol.asyncDispose]: () => http[Symbol.asyncDispose](),
  }
}

function refusal(url: URL, status: number, text: string): CliError | AuditError {
  let problem: unknown
  try {
    problem = JSON.parse(text)
  } catch {
    problem = undefined
  }
  if (!Value.Check(Problem, problem))
    return new CliError('the gateway gave an answer that this program does not understand', {
      code: 'gateway.answer',
      exit: status >= 500 ? 'unreachable' : 'failed',
      why: `${url.pathname}: status ${status}`,
      next: 'use the sallyport command of the same version as the gateway',
    })
  if (problem.code === 'witness.other_log')
    return new AuditError('mirror.other', problem.detail ?? problem.title)
  const exit = exitOf(status)
  const { code, title, detail: why, next_step: next, request_id: id } = problem
  return new CliError(title, { code, exit, why, next, id })
}

/** `failed` is what a rewritten log ends with; a gateway that fails is one that does not answer. */
function exitOf(status: number): Exit {
  if (status >= 500) return 'unreachable'
  if (status === 401) return 'unauthenticated'
  return status === 403 ? 'denied' : 'failed'
}

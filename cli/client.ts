/**
 * The API as the commands use it: one call, its answer checked against the published schema, a
 * refusal turned into the error a person reads. The only way the CLI talks to a gateway.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Type, type Static, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { Device, DeviceToken, OpenedSession, Passkey, Problem, type SessionUse } from '#api'
import { exchange, fetchAnchor, type HttpAnswer } from './anchor.ts'
import { AWAITED, onceAnswered } from './awaited.ts'
import type { GlobalOptions } from './commands/options.ts'
import { CliError, type Exit } from './exit.ts'
import {
  authorizedFetch,
  loadCredentials,
  loadServiceFile,
  saveCredentials,
  serviceFetch,
  type AuthorizedFetch,
  type Credentials,
} from './login/index.ts'
import { patient } from './patient.ts'
import { note } from './print.ts'
import { profileDirectory, serviceFile, witnessDirectory } from './profile.ts'
import { witnessing } from './witness.ts'

export {
  Account,
  AddedAuditor,
  Auditor,
  BreakGlass,
  Certificate,
  Ceremony,
  Cut,
  Device,
  DeviceBaseline,
  DeviceToken,
  EndedGrant,
  Enrolment,
  EnrolmentToken,
  Grant,
  Idp,
  Info,
  Invitation,
  Lock,
  Locked,
  LogPage,
  LoggedDecision,
  MadeInvitation,
  Me,
  OpenedSession,
  Passkey,
  Enrolling,
  Totps,
  DecisionsPage,
  BundleSourceHealth,
  PolicyActivated,
  PolicyImpact,
  PolicyStatus,
  PolicyTrial,
  PruneStatus,
  RotationStatus,
  Process,
  Recording,
  RecordingView,
  RemovedIdp,
  ReplacedDevice,
  RevocationList,
  Revocation,
  RevokedDevice,
  Rollout,
  RolloutDevice,
  Service,
  Session,
  SessionWatch,
  SignedGrant,
  WhoCan,
} from '#api'

/** The passkeys that are left. */
export const Passkeys = Type.Object({ items: Type.Array(Passkey) })
export const AddedDevice = Type.Object({ device: Device, token: DeviceToken })

export type Method = 'GET' | 'POST' | 'PUT'

export interface Api {
  readonly gateway: URL
  /** PEM of the gateway's root. */
  readonly anchor: string
  /**
   * One call under `/api/v1`. Throws CliError: the gateway's own code where it refuses,
   * `gateway.unreachable`, `gateway.untrusted`, or `gateway.answer` where the answer is not of `schema`.
   */
  call<S extends TSchema>(
    schema: S,
    method: Method,
    path: string,
    body?: unknown,
  ): Promise<Static<S>>
  /** As `call`, with a body that is not JSON. */
  send<S extends TSchema>(schema: S, path: string, body: Octets): Promise<Static<S>>
  /** A document that is not JSON, as it came. Throws as `call`. */
  fetch(path: string): Promise<Uint8Array>
}

type Send = (method: Method, url: URL, body: string | Octets | undefined) => Promise<HttpAnswer>

/** A body that is not JSON. */
export interface Octets {
  readonly type: string
  readonly bytes: Uint8Array
}

/**
 * The API in the name of whoever is signed in under the profile. Throws CliError `login.none`, and
 * what reading the kept login throws; calls reject with `log.conflict` where the gateway's log was rewritten.
 */
export async function openApi(options: GlobalOptions): Promise<Api> {
  const api = await openPlainApi(options)
  return witnessing(api, witnessDirectory(options.profile, api.gateway))
}

/** As `openApi`, and nobody looks at the log first. */
export async function openPlainApi({ profile }: GlobalOptions): Promise<Api> {
  const { credentials, fetch } = await signedIn(profile)
  const send = patient(fetch)
  return apiOver(new URL(credentials.gateway), credentials.anchor, async (method, url, body) => {
    const { headers, ...rest } = bodyOf(body)
    const answer = await send(url, {
      method,
      headers: { ...headers, ...keyOf(method, url) },
      ...rest,
    })
    const bytes = await answer.bytes()
    return {
      status: answer.status,
      headers: Object.fromEntries(answer.headers),
      body: new TextDecoder().decode(bytes),
      bytes,
    }
  })
}

/** In whose name: of the service whose file the environment names, else of who is signed in under the profile. */
async function signedIn(profile: string): Promise<{
  readonly credentials: Pick<Credentials, 'gateway' | 'anchor'>
  readonly fetch: AuthorizedFetch
}> {
  const file = serviceFile()
  if (file !== undefined) {
    const service = await loadServiceFile(file)
    return { credentials: service, fetch: await serviceFetch(service) }
  }
  const directory = profileDirectory(profile)
  const credentials = await loadCredentials(directory)
  if (credentials === undefined) throw notSignedIn(profile)
  const onRefresh = async (fresh: Credentials) => saveCredentials(directory, fresh)
  return { credentials, fetch: authorizedFetch(credentials, { onRefresh }) }
}

function notSignedIn(profile: string): CliError {
  const named = profile === 'default' ? '' : ` --profile ${profile}`
  return new CliError('nobody is signed in here', {
    code: 'login.none',
    exit: 'unauthenticated',
    why: profile === 'default' ? undefined : `the profile ${profile} holds no sign-in`,
    next: `sallyport login${named} --gateway URL --ca-sha256 HEX`,
  })
}

/** The API for somebody who has not signed in: /info and /bootstrap. */
export async function openAnonymous(gateway: URL, caSha256: string): Promise<Api> {
  const anchor = await fetchAnchor(gateway, caSha256)
  return apiOver(gateway, anchor, async (method, url, body) =>
    exchange({ method, url, anchor, ...jsonBody(typeof body === 'string' ? body : undefined) }),
  )
}

/** Opening a session: one never heard of ends by itself, its secret is told once. Looks at one: each is another one. */
const WITHOUT_KEY = /^\/api\/v1\/sessions(\/[^/]+\/(watch|supervise))?$/

/** The key under which a write is done once, however often it is sent. */
export function keyOf(method: Method, url: URL): Record<string, string> {
  if (method === 'GET' || WITHOUT_KEY.test(url.pathname)) return {}
  return { 'idempotency-key': randomUUID() }
}

function bodyOf(body: string | Octets | undefined): {
  headers: Record<string, string>
  body?: string | Uint8Array
} {
  if (body === undefined || typeof body === 'string') return jsonBody(body)
  return { headers: { accept: 'application/json', 'content-type': body.type }, body: body.bytes }
}

function jsonBody(body: string | undefined): { headers: Record<string, string>; body?: string } {
  if (body === undefined) return { headers: { accept: 'application/json' } }
  return {
    headers: {
      accept: 'application/json',
      'content-type': 'application/json',
    },
    body,
  }
}

function apiOver(gateway: URL, anchor: string, send: Send): Api {
  return {
    gateway,
    anchor,
    async call(schema, method, path, body) {
      const url = new URL(`/api/v1${path}`, gateway)
      // A POST without facts still says that it is JSON: the API takes nothing else.
      const text = method === 'GET' ? undefined : JSON.stringify(body ?? {})
      return read(schema, url, await send(method, url, text))
    },
    async send(schema, path, body) {
      const url = new URL(`/api/v1${path}`, gateway)
      return read(schema, url, await send('POST', url, body))
    },
    async fetch(path) {
      const url = new URL(`/api/v1${path}`, gateway)
      const answer = await send('GET', url, undefined)
      if (answer.status !== 200) throw refusal(url, answer.status, parse(answer.body))
      return answer.bytes ?? new TextEncoder().encode(answer.body)
    },
  }
}

function read<S extends TSchema>(schema: S, url: URL, answer: HttpAnswer): Static<S> {
  const value = parse(answer.body)
  if (answer.status < 200 || answer.status > 299) throw refusal(url, answer.status, value)
  if (Value.Check(schema, value)) return value
  const first = Value.Errors(schema, value)[0]
  throw new CliError('the gateway gave an answer that this program does not understand', {
    code: 'gateway.answer',
    exit: 'failed',
    why: `${url.pathname}: ${first === undefined ? 'not JSON' : `${first.instancePath || '/'} ${first.message}`}`,
    next: 'use the sallyport command of the same version as the gateway',
  })
}

/** The most that one page has. */
const PAGE = 500

/**
 * Every item of a list in its order, or the first `most`, page by page. What moved while the pages came is there once, as
 * it was last. Throws as `call`.
 */
export async function all<S extends TSchema>(
  api: Api,
  item: S,
  method: 'GET',
  path: string,
  most = Number.POSITIVE_INFINITY,
): Promise<Static<S>[]> {
  // Gateways that have no pages give everything at once.
  const schema = Type.Object({
    items: Type.Array(item),
    next: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  })
  const found = new Map<string, Static<S>>()
  for (let after: string | null = ''; after !== null && found.size < most;) {
    const [plain = '', kept] = path.split('?')
    const query = new URLSearchParams(kept)
    query.set('limit', String(Math.min(PAGE, most - found.size)))
    if (after !== '') query.set('after', after)
    const page: { items: Static<S>[]; next?: string | null } = await api.call(
      schema,
      method,
      `${plain}?${query.toString()}`,
    )
    for (const one of page.items) found.set(nameOf(one), one)
    after = page.items.length === 0 ? null : (page.next ?? null)
  }
  return [...found.values()]
}

/** What an item of a list is known by; of one that says nothing of the kind, all of it. */
function nameOf(item: unknown): string {
  const { id, sub, serial, session, issuer, name } = item as Record<string, unknown>
  const own = id ?? sub ?? serial ?? session ?? issuer ?? name
  return typeof own === 'string' ? own : JSON.stringify(item)
}

/** The session's own answer, with the command that gets one where there is no grant. */
export async function openSession(
  api: Api,
  target: { readonly device: string; readonly process: string },
  grant: string | undefined,
  uses: readonly SessionUse[],
  pause: (ms: number) => Promise<unknown> = sleep,
): Promise<OpenedSession> {
  const asked = { ...target, uses, ...(grant === undefined ? {} : { grant }) }
  try {
    return await onceAnswered(() => api.call(OpenedSession, 'POST', '/sessions', asked), {
      codeOf: (error) => (error instanceof CliError ? error.code : undefined),
      told: () => note(AWAITED),
      pause,
      now: () => performance.now(),
    })
  } catch (error) {
    if (!(error instanceof CliError) || error.code !== 'grant.none') throw error
    const command = `sallyport request ${target.device}/${target.process} --for 2m --reason …`
    const next = error.next === undefined ? command : `${error.next} ${command}`
    const { code, exit, why, id } = error
    throw new CliError(error.message, { code, exit, why, next, id }, { cause: error })
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** RFC 9457 as an error: every denial's sentence, the first next step, the id that finds it in the log. */
function refusal(url: URL, status: number, value: unknown): CliError {
  if (!Value.Check(Problem, value))
    return new CliError(`the gateway answered ${status} to ${url.pathname}`, {
      code: 'gateway.answer',
      exit: exitFor(status),
    })
  const denials = value.denials ?? []
  const others = denials
    .filter(({ code }) => code !== value.code)
    .map(({ code, msg }) => `${msg} (${code})`)
  return new CliError(value.title, {
    code: value.code,
    exit: exitFor(status),
    why: [value.detail, ...others].join('; '),
    next: value.next_step,
    id: value.decision_id ?? value.request_id,
  })
}

function exitFor(status: number): Exit {
  if (status === 401) return 'unauthenticated'
  return status === 403 ? 'denied' : 'failed'
}

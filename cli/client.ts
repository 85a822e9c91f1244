/**
 * The API as the commands use it: one call, its answer checked against the published schema, a
 * refusal turned into the error a person reads. The only way the CLI talks to a gateway.
 */
import { Type, type Static, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import {
  Account,
  Auditor,
  Certificate,
  Device,
  DeviceToken,
  Enrolment,
  EnrolmentToken,
  Grant,
  Idp,
  Invitation,
  Lock,
  OpenedSession,
  Passkey,
  Problem,
  Recording,
  RevocationList,
  Session,
  type SessionUse,
} from '#api'
import { exchange, fetchAnchor, type HttpAnswer } from './anchor.ts'
import type { GlobalOptions } from './commands/options.ts'
import { CliError, type Exit } from './exit.ts'
import { authorizedFetch, loadCredentials, saveCredentials } from './login/index.ts'
import { patient } from './patient.ts'
import { profileDirectory } from './profile.ts'
import { witnessing } from './witness.ts'

export {
  Account,
  AddedAuditor,
  Auditor,
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
  DecisionsPage,
  PolicyActivated,
  PolicyImpact,
  PolicyStatus,
  PolicyTrial,
  PruneStatus,
  Process,
  Recording,
  RecordingView,
  RemovedIdp,
  ReplacedDevice,
  Revocation,
  RevokedDevice,
  Session,
  SessionWatch,
  SignedGrant,
  WhoCan,
} from '#api'

export const Accounts = Type.Object({
  items: Type.Array(Account),
  next: Type.Union([Type.String(), Type.Null()]),
})
export const Auditors = Type.Object({ items: Type.Array(Auditor) })
export const Recordings = Type.Object({ items: Type.Array(Recording) })
export const Idps = Type.Object({ items: Type.Array(Idp) })
export const Invitations = Type.Object({ items: Type.Array(Invitation) })
export const Locks = Type.Object({ items: Type.Array(Lock) })
export const Passkeys = Type.Object({ items: Type.Array(Passkey) })
export const Devices = Type.Object({ items: Type.Array(Device) })
export const Enrolments = Type.Object({ items: Type.Array(Enrolment) })
export const EnrolmentTokens = Type.Object({ items: Type.Array(EnrolmentToken) })
export const Grants = Type.Object({ items: Type.Array(Grant) })
export const Sessions = Type.Object({ items: Type.Array(Session) })
export const Certificates = Type.Object({ items: Type.Array(Certificate) })
export const RevocationLists = Type.Object({ items: Type.Array(RevocationList) })
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
  return witnessing(await openPlainApi(options), profileDirectory(options.profile))
}

/** As `openApi`, and nobody looks at the log first. */
export async function openPlainApi({ profile }: GlobalOptions): Promise<Api> {
  const directory = profileDirectory(profile)
  const credentials = await loadCredentials(directory)
  if (credentials === undefined) throw notSignedIn(profile)
  const send = patient(
    authorizedFetch(credentials, {
      onRefresh: async (fresh) => saveCredentials(directory, fresh),
    }),
  )
  return apiOver(new URL(credentials.gateway), credentials.anchor, async (method, url, body) => {
    const answer = await send(url, { method, ...bodyOf(body) })
    const bytes = await answer.bytes()
    return {
      status: answer.status,
      headers: Object.fromEntries(answer.headers),
      body: new TextDecoder().decode(bytes),
      bytes,
    }
  })
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

/** The session's own answer, with the command that gets one where there is no grant. */
export async function openSession(
  api: Api,
  target: { readonly device: string; readonly process: string },
  grant: string | undefined,
  uses: readonly SessionUse[],
): Promise<OpenedSession> {
  try {
    return await api.call(OpenedSession, 'POST', '/sessions', {
      ...target,
      uses,
      ...(grant === undefined ? {} : { grant }),
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

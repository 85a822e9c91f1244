/**
 * `/passkeys`, `/step-up`, `/grants/{id}/approval`, `/ceremonies`: who is signed in asks for a question to their
 * authenticator; the page that has its secret shows it and brings the answer.
 */
import { Type } from 'typebox'
import {
  AccountId,
  ApproversToSign,
  Ceremony,
  CeremonyAnswer,
  CeremonyDone,
  CeremonySecret,
  CeremonyShown,
  GrantId,
  NewPasskey,
  Passkey,
  PasskeyId,
  Page,
} from '#api'
import { createHash } from 'node:crypto'
import {
  hashOfSet,
  readApproverSet,
  recurrenceInWords,
  windowsInWords,
  type ApproverSet,
  type GrantRef,
} from '#approval'
import { approveGrant, mayBeSigned } from '../../grants/approve.ts'
import { findGrant } from '../../grants/find.ts'
import type { Grant } from '../../grants/grant.ts'
import {
  isRefusal,
  shownHere,
  type Answered,
  type Ceremony as Asked,
  type BrowserAnswer,
  type Identity,
  type Login,
  type Passkey as Held,
  type Subject,
} from '../../identity/index.ts'
import type { Locks } from '../../locks/locks.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, doneBy } from '../authorize.ts'
import { pageIn, pageOf } from '../cursor.ts'
import { takesEffect } from './grant-effect.ts'
import { visible, type GrantRoutes } from './grants.ts'
import { asLast, toRefusal } from './people.ts'

export interface PasskeyRoutes extends GrantRoutes {
  readonly identity: Identity
  readonly locks: Pick<Locks, 'keepingAdministrator'>
  /** `https://<host>:<port>`. */
  readonly origin: string
  /** Epoch milliseconds. */
  readonly now: () => number
}

const seconds = (ms: number) => Math.floor(ms / 1000)

function view({ id, name, alg, spki, backedUp, createdAt, usedAt }: Held): Passkey {
  return {
    id,
    name,
    alg,
    spki,
    synced: backedUp,
    created_at: seconds(createdAt),
    used_at: usedAt === null ? null : seconds(usedAt),
  }
}

const rethrow = (error: unknown): never => {
  throw toRefusal(error)
}

export function passkeyRoutes(api: Api, room: PasskeyRoutes): void {
  holding(api, room)
  asking(api, room)
  answering(api, room)
}

const subOf = ({ identity }: PasskeyRoutes, subject: Subject): string =>
  subject.id.slice(identity.issuer.length + 1)

const Items = Type.Object({ items: Type.Array(Passkey) })
const Empty = Type.Object({}, { additionalProperties: false })

/** One's own passkeys, and an administrator's way to take them from somebody who lost theirs. */
function holding(api: Api, room: PasskeyRoutes): void {
  const { server } = api
  const { passkeys, accounts } = room.identity
  const schema = { querystring: Page, response: { 200: pageOf(Passkey) } }
  server.get('/api/v1/passkeys', { schema }, async (request) => {
    const subject = await api.caller(request)
    const all = await passkeys.list(subOf(room, subject))
    const { items, next } = pageIn('passkeys', all, request.query, (one) => [one.createdAt, one.id])
    return { items: items.map(view), next }
  })
  server.post(
    '/api/v1/passkeys/:id/remove',
    { schema: { params: Type.Object({ id: PasskeyId }), body: Empty, response: { 200: Items } } },
    async (request) => {
      const subject = await api.caller(request)
      // Who took over a sign-in must not take the second factor off the account with it.
      if (!shownHere(subject.authn) || !fresh(room, subject))
        throw new Refusal('policy.denied', 'a passkey is removed by who has just shown one', {
          nextStep: 'sallyport step-up, or ask an administrator',
          denials: [
            { code: 'mfa.stale', msg: 'a fresh second factor is required', remedy: 'step_up' },
          ],
        })
      const sub = subOf(room, subject)
      const by = doneBy({ subject, source: api.source(request) })
      await passkeys.remove(sub, request.params.id, by).catch(rethrow)
      return { items: (await passkeys.list(sub)).map(view) }
    },
  )
  server.post(
    '/api/v1/accounts/:id/passkeys/remove',
    { schema: { params: Type.Object({ id: AccountId }), body: Empty, response: { 200: Items } } },
    async (request) => {
      const { id } = request.params
      const has = (await passkeys.list(id)).length > 0 || (await accounts.hasLogins(id))
      const target = { kind: 'account', id, idle: !has }
      const caller = await authorize({ ...room, api }, request, 'account:change', target)
      const by = doneBy(caller)
      const reset = async () => await passkeys.reset(id, by).catch(rethrow)
      // Where a passkey is the only way in, taking it shuts its owner out.
      const shut = !(await accounts.hasPassword(id))
      const identity = `${room.identity.issuer}|${id}`
      const gone = () => (account: { identity: string }) => shut && account.identity === identity
      await room.locks.keepingAdministrator(gone, reset).catch(asLast)
      return { items: (await passkeys.list(id)).map(view) }
    },
  )
}

const FRESH_S = 300

function fresh({ now }: PasskeyRoutes, { authn }: Subject): boolean {
  const age = seconds(now()) - authn.at
  return age >= -5 && age <= FRESH_S
}

function asked({ origin }: PasskeyRoutes, { secret, expiresAt, options }: Asked): Ceremony {
  // Behind the hash: it reaches no server log and no referrer.
  return { secret, url: `${origin}/oidc/passkey#${secret}`, expires_at: expiresAt, options }
}

function asking(api: Api, room: PasskeyRoutes): void {
  const { server } = api
  const { identity } = room
  server.post(
    '/api/v1/passkeys',
    { schema: { body: NewPasskey, response: { 201: Ceremony } } },
    async (request, reply) => {
      const subject = await api.caller(request)
      const login = identity.loginOf(subject)
      const ceremony = await identity.passkeys
        .register(subject, login, request.body.name)
        .catch(rethrow)
      return reply.status(201).send(asked(room, ceremony))
    },
  )
  server.post(
    '/api/v1/step-up',
    { schema: { body: Empty, response: { 201: Ceremony } } },
    async (request, reply) => {
      const subject = await api.caller(request)
      const login = identity.loginOf(subject)
      // Who was sent somebody else's link sees that it is not theirs.
      const about = api.source(request).ip ?? 'unknown'
      const question = { kind: 'step_up', sub: subOf(room, subject), login, about } as const
      const ceremony = await identity.passkeys.ask(question).catch(rethrow)
      return reply.status(201).send(asked(room, ceremony))
    },
  )
  server.post(
    '/api/v1/approvers/signature',
    { schema: { body: ApproversToSign, response: { 201: Ceremony } } },
    async (request, reply) => {
      const subject = await api.caller(request)
      const set = readApproverSet(request.body.set)
      if (typeof set === 'string')
        throw new Refusal('body.invalid', `this is no set of approvers: ${set}`)
      const question = { sub: subOf(room, subject), login: identity.loginOf(subject) }
      const challenge = Buffer.from(hashOfSet(set), 'hex')
      const ceremony = await identity.passkeys
        .ask({ kind: 'sign', ...question, about: JSON.stringify(set), challenge })
        .catch(rethrow)
      return reply.status(201).send(asked(room, ceremony))
    },
  )
  server.post(
    '/api/v1/grants/:id/approval',
    {
      schema: { params: Type.Object({ id: GrantId }), body: Empty, response: { 201: Ceremony } },
    },
    async (request, reply) => {
      const { id } = request.params
      const { grant, subject } = await visible(api, room, id, request)
      const source = api.source(request)
      await mayBeSigned(room.grants, { subject, source, id, hash: grant.hash })
      const challenge = Buffer.from(grant.hash, 'hex')
      const question = { sub: subOf(room, subject), login: identity.loginOf(subject), about: id }
      const ceremony = await identity.passkeys
        .ask({ kind: 'approve', ...question, challenge })
        .catch(rethrow)
      return reply.status(201).send(asked(room, ceremony))
    },
  )
}

const OPEN = ['register', 'step_up', 'approve', 'sign'] as const
type OpenKind = (typeof OPEN)[number]
const isOpen = (kind: string): kind is OpenKind => OPEN.some((one) => one === kind)

const TITLES: Readonly<Record<OpenKind, string>> = {
  register: 'Add a passkey',
  step_up: 'Show your passkey',
  approve: 'Approve with your passkey',
  sign: 'Sign the new approvers',
}

/** Open to whoever has the secret: it shows a question, and its answer must be that person's passkey's. */
function answering(api: Api, room: PasskeyRoutes): void {
  const { server } = api
  const { passkeys, accounts } = room.identity
  server.post(
    '/api/v1/ceremonies/show',
    { schema: { security: [], body: CeremonySecret, response: { 200: CeremonyShown } } },
    async (request) => {
      const { question, options } = await passkeys.show(request.body.secret).catch(rethrow)
      const { kind, sub, about } = question
      if (!isOpen(kind)) throw new Refusal('ceremony.unknown', 'this is asked on another page')
      const account = await accounts.find(sub)
      return {
        kind,
        email: account?.email ?? '',
        title: TITLES[kind],
        facts: await factsOf(room, kind, about),
        options,
      }
    },
  )
  server.post(
    '/api/v1/ceremonies/answer',
    { schema: { security: [], body: CeremonyAnswer, response: { 200: CeremonyDone } } },
    async (request) => {
      const { secret, credential } = request.body
      const source = api.source(request)
      const answered = await passkeys
        .answer(secret, OPEN, credential as BrowserAnswer, source.ip)
        .catch(rethrow)
      return await ACTS[answered.kind as OpenKind](room, answered, source)
    },
  )
}

async function factsOf(
  { grants }: PasskeyRoutes,
  kind: OpenKind,
  about: string,
): Promise<[string, string][]> {
  if (kind === 'register') return [['Name', about]]
  if (kind === 'step_up')
    return [
      ['Asked from', about],
      ['Continue only if', 'you asked for this yourself, a moment ago'],
    ]
  if (kind === 'sign') return setLines(JSON.parse(about) as ApproverSet)
  return grantLines(await findGrant(grants, about))
}

const when = (at: number) => new Date(at * 1000).toISOString().replace('.000Z', 'Z')

/** `ot_level` 0, 1, 2. */
const LEVELS = ['none', 'read only', 'read and write']

/** The statement as a person reads it: everything that is signed. */
function grantLines({ statement, hash, requester_email: email }: Grant): [string, string][] {
  return [
    ['Who', email ?? statement.requester],
    ['Identity', statement.requester],
    ['Company', statement.vendor ?? 'none: staff'],
    ['Device', statement.devices.join(', ')],
    ['Process', statement.processes.join(', ')],
    ['Window', `${when(statement.not_before)} to ${when(statement.not_after)}`],
    ...(statement.recurring === undefined
      ? []
      : [['Only', recurrenceInWords(statement.recurring)] satisfies [string, string]]),
    ['How long', `${statement.max_duration_s} s from the first use`],
    ['Sessions', statement.max_uses === undefined ? 'any number' : String(statement.max_uses)],
    [
      'Bytes',
      statement.max_bytes === undefined ? 'no limit of its own' : String(statement.max_bytes),
    ],
    ['Industrial protocols', LEVELS[statement.ot_level] ?? `level ${statement.ot_level}`],
    ['Addresses', windowsInWords(statement.ot_windows ?? []) || 'all that the process has'],
    ...refLine('Extends', statement.extends),
    ...refLine('Ends', statement.supersedes),
    ...(statement.sealed === undefined
      ? []
      : [
          [
            'Sealed',
            `opens nothing until ${statement.sealed.quorum} people have broken its seal`,
          ] satisfies [string, string],
        ]),
    ...refLine('BREAKS THE SEAL OF', statement.unseals),
    ['Reason', statement.reason],
    ['Ticket', statement.ticket ?? 'none'],
    ['Asked at', when(statement.created_at)],
    ['Grant', statement.id],
    ['Tenant', statement.tenant],
    ['Statement', hash],
  ]
}

const refLine = (name: string, ref: GrantRef | undefined): [string, string][] =>
  ref === undefined ? [] : [[name, `grant ${ref.grant}, statement ${ref.sha256}`]]

/** A set of approvers as a person reads it: everything that is signed. */
function setLines(set: ApproverSet): [string, string][] {
  const keyOf = (spki: string) =>
    createHash('sha256').update(Buffer.from(spki, 'base64url')).digest('hex').slice(0, 16)
  return [
    ['Device', set.device],
    ['Number', String(set.seq)],
    ['People needed', String(set.quorum)],
    ...set.approvers.map(({ person, key }): [string, string] => [
      'Approver',
      `${person}, key ${key.alg} ${keyOf(key.spki)}`,
    ]),
    ['Held to Modbus', set.modbus.join(', ') || 'none'],
    ['Signed at', set.relying_party.origins.join(', ')],
    ['Set', hashOfSet(set)],
  ]
}

type Act = (
  room: PasskeyRoutes,
  answered: Answered,
  source: ReturnType<Api['source']>,
) => Promise<CeremonyDone>

/** What each question's answer does. */
const ACTS: Readonly<Record<OpenKind, Act>> = {
  register: async (_room, { passkey }) => ({
    kind: 'register',
    message: `The passkey “${passkey.name}” is yours now. You can close this page.`,
    grant: null,
    assertion: null,
  }),
  async step_up({ identity, now }, { login }) {
    if (login === null || !(await identity.stepUp(login, now()))) throw ended()
    return {
      kind: 'step_up',
      message: 'Your passkey was accepted. Go on where you were asked for it.',
      grant: null,
      assertion: null,
    }
  },
  async approve(room, answered, source) {
    const at = performance.now()
    const subject = await approver(room, answered)
    const { about, signed } = answered
    // What was asked to be signed is the hash of the grant as it was then; a statement never changes.
    const { hash } = await findGrant(room.grants, about)
    const ask = { subject, source, id: about, hash, signature: signed }
    const grant = await approveGrant(room.grants, ask)
    await takesEffect(room, grant, at)
    const { id } = grant.statement
    const given = grant.approvals.length
    return {
      kind: 'approve',
      message: `${id} has ${given} of ${grant.approvals_needed} approvals. You can close this page.`,
      grant: { id, state: grant.state, approvals: given },
      assertion: null,
    }
  },
  sign: async (_room, { signed }) => ({
    kind: 'sign',
    message: 'Signed. Give these lines to the owner of the device, as a file:',
    grant: null,
    assertion: signed?.assertion ?? null,
  }),
}

const ended = () =>
  new Refusal('identity.refused', 'the sign-in that asked for this has ended', {
    nextStep: 'sign in again: sallyport login',
  })

/** The person as of now, and of this very moment's proof: the passkey's. */
async function approver(room: PasskeyRoutes, { login }: Answered): Promise<Subject> {
  const current =
    login === null ? undefined : await room.identity.current(login as Login, room.now())
  if (current === undefined || isRefusal(current)) throw ended()
  const methods = [...new Set([...current.authn.methods, 'webauthn'])]
  const authn = { ...current.authn, methods, at: seconds(room.now()) }
  return { ...current, authn }
}

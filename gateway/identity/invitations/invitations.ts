/**
 * Invitations: an administrator says who may come in, and gets a link that does it once. A guest becomes an account, as
 * the invitation says; who has one and lost the way into it gets a new one, and the old ones end. What they bring is a
 * password or a passkey, and nothing else that they send counts. The store has the hash of the link's secret alone.
 */
import { createHash, randomBytes } from 'node:crypto'
import { generateRegistrationOptions } from '@simplewebauthn/server'
import type { RelyingParty } from '#approval'
import { newId } from '../../ids.ts'
import type { Accounts, Actor } from '../accounts.ts'
import { ACR_PASSWORD } from '../attempt.ts'
import { IdentityError } from '../errors.ts'
import { recordAct, type IdentityLog, type PasskeyEvent } from '../events.ts'
import { checkFacts, checkPassword, newSub, normalise, type Account, type Facts } from '../facts.ts'
import type { Passwords } from '../password.ts'
import {
  askOnce,
  takeUp,
  TIMEOUT_MS,
  type Ceremony,
  type CeremonyRoom,
} from '../passkeys/ceremony.ts'
import { ACR_PASSKEY, METHOD, type BrowserAnswer } from '../passkeys/credential.ts'
import { ALGORITHMS } from '../passkeys/key.ts'
import { mayHavePasskeys, octets, readNewPasskey } from '../passkeys/verify.ts'
import type { IdpDoor } from '../setting.ts'
import type {
  AccountRow,
  IdentityStore,
  InvitationRow,
  InvitationStore,
  PasskeyRow,
  PasskeyStore,
} from '../store.ts'

const HOUR_S = 3_600
/** How long an invitation stands: where nothing is said, at least, and at most. Seconds. */
const STANDS_S = { usual: 72 * HOUR_S, least: 600, most: 30 * 24 * HOUR_S } as const
/** Of those that stand; more are somebody's loop. */
const MOST = 1_000
/** Links that open nothing, from one source; one that does costs nothing. */
const WRONG = { limit: 20, windowMs: 10 * 60_000 }
const FIRST_PASSKEY = 'from the invitation'

/** An invitation as others see it: without the hash. Instants are epoch milliseconds. */
export type Invitation = Omit<InvitationRow, 'hash'>

export interface NewInvitation {
  /** What the guest signs in with; made of the name where absent. It need not receive mail. */
  readonly email?: string | undefined
  readonly name: string
  /** The company. */
  readonly vendor: string
  readonly groups: readonly string[]
  /** From 600 (ten minutes) to 2,592,000 (30 days); 72 hours where absent. */
  readonly standsSeconds?: number | undefined
}

/** How the guest will sign in from now on. */
export type Way =
  | { readonly password: string }
  | { readonly question: string; readonly answer: BrowserAnswer }

/** A guest who came in: the account, and what they proved. */
export interface Accepted {
  readonly account: Account
  readonly methods: readonly string[]
  readonly acr: string
}

export interface Invitations {
  /**
   * Invites somebody; gives the secret of the link, which is kept nowhere. Errors: account.email, .name, .vendor,
   * .groups, .exists (also where an invitation of this address stands), invitation.expiry, .full, .company, log.unavailable.
   */
  invite(
    asked: NewInvitation,
    by: Actor,
  ): Promise<{ readonly invitation: Invitation; readonly secret: string }>
  /**
   * A link by which the owner of an account chooses anew how to sign in; it ends those made before it.
   * Errors: account.unknown, .disabled, .outside, invitation.expiry, .full, log.unavailable.
   */
  renew(
    sub: string,
    standsSeconds: number | undefined,
    by: Actor,
  ): Promise<{ readonly invitation: Invitation; readonly secret: string }>
  /** Newest first, at most `limit`. */
  list(limit: number): Promise<readonly Invitation[]>
  /** The link opens nothing any more. Errors: invitation.unknown, .used, .revoked, log.unavailable. */
  revoke(id: string, by: Actor): Promise<Invitation>
  /**
   * What the holder of the secret is invited as, with a question to their authenticator where this gateway can have
   * passkeys. Errors: invitation.unknown, .used, .expired, .revoked, .limit, ceremony.limit.
   */
  show(
    secret: string,
    source: string,
  ): Promise<{ readonly invitation: Invitation; readonly question: Ceremony | null }>
  /**
   * The guest's account is made, or the owner's renewed and every login of theirs ended, and the invitation used up; a
   * refusal leaves it as it was. Errors: as `show`, and account.exists, .disabled, invitation.company, password.*, ceremony.unknown,
   * passkey.refused, .exists, busy, log.unavailable; log.incomplete after the logins ended.
   */
  accept(secret: string, way: Way, source: string): Promise<Accepted>
}

export interface InvitationsRoom extends CeremonyRoom {
  readonly issuer: string
  readonly relyingParty: RelyingParty
  readonly store: Pick<IdentityStore, 'take' | 'settle'>
  readonly invitationStore: InvitationStore
  readonly passkeyStore: Pick<PasskeyStore, 'findPasskey'>
  readonly accounts: Pick<Accounts, 'find' | 'findByEmail' | 'endLogins'>
  readonly passwords: Passwords
  readonly idps: Pick<IdpDoor, 'forAddress'>
  readonly log: IdentityLog
}

export function openInvitations(room: InvitationsRoom): Invitations {
  const turns = new Map<string, Promise<unknown>>()
  return {
    invite: async (asked, by) => invite(room, asked, by),
    renew: async (sub, seconds, by) => renew(room, sub, seconds, by),
    list: async (limit) => (await room.invitationStore.listInvitations(limit)).map(shown),
    revoke: async (id, by) => revoke(room, id, by),
    async show(secret, source) {
      const row = await standing(room, secret, source)
      return { invitation: shown(row), question: await questionFor(room, row) }
    },
    async accept(secret, way, source) {
      const { id } = await standing(room, secret, source)
      // Of two tabs at once, the log must not tell of two accounts.
      return inTurn(turns, id, async () => accept(room, secret, way, source))
    },
  }
}

const shown = ({ hash: _, ...invitation }: InvitationRow): Invitation => invitation

const hashOf = (secret: string): string =>
  createHash('sha256').update(secret.slice(0, 200)).digest('hex')

async function inTurn<T>(
  turns: Map<string, Promise<unknown>>,
  id: string,
  work: () => Promise<T>,
): Promise<T> {
  const before = turns.get(id) ?? Promise.resolve()
  const mine = before.then(work, work)
  turns.set(id, mine)
  try {
    return await mine
  } finally {
    if (turns.get(id) === mine) turns.delete(id)
  }
}

/** A name to sign in with that no mail reaches (RFC 2606), of the letters of a person's name where it has such. */
function addressOf(name: string): string {
  const letters = name.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase()
  const words = letters.match(/[a-z0-9]+/g) ?? [`guest-${randomBytes(3).toString('hex')}`]
  return `${words.join('.').slice(0, 60)}@guest.invalid`
}

async function invite(
  room: InvitationsRoom,
  asked: NewInvitation,
  by: Actor,
): Promise<{ invitation: Invitation; secret: string }> {
  const facts = checkFacts({
    email: normalise(asked.email ?? addressOf(asked.name)),
    name: asked.name.normalize('NFC').trim(),
    party: 'vendor',
    vendor: asked.vendor.normalize('NFC').trim(),
    roles: ['vendor'],
    groups: [...new Set(asked.groups)],
  })
  if ((await room.idps.forAddress(facts.email)) !== undefined)
    throw new IdentityError('invitation.company')
  if (await room.invitationStore.isTaken(facts.email, room.now()))
    throw new IdentityError('account.exists')
  const { email, name, vendor, groups } = facts
  const row = { sub: newSub(), renews: false, email, name, vendor, groups }
  return put(room, row, asked.standsSeconds, by)
}

async function renew(
  room: InvitationsRoom,
  sub: string,
  standsSeconds: number | undefined,
  by: Actor,
): Promise<{ invitation: Invitation; secret: string }> {
  const account = await room.accounts.find(sub)
  if (account === undefined) throw new IdentityError('account.unknown')
  if (account.outside !== null) throw new IdentityError('account.outside')
  if (account.disabled) throw new IdentityError('account.disabled')
  const { email, name, vendor, groups } = account
  return put(room, { sub, renews: true, email, name, vendor, groups }, standsSeconds, by)
}

/** Records it, then keeps it; gives the secret, which is kept nowhere. */
async function put(
  { invitationStore, log, now }: InvitationsRoom,
  about: Pick<InvitationRow, 'sub' | 'renews' | 'email' | 'name' | 'vendor' | 'groups'>,
  standsSeconds: number | undefined,
  by: Actor,
): Promise<{ invitation: Invitation; secret: string }> {
  const seconds = standsSeconds ?? STANDS_S.usual
  if (!Number.isSafeInteger(seconds) || seconds < STANDS_S.least || seconds > STANDS_S.most)
    throw new IdentityError('invitation.expiry')
  if ((await invitationStore.standingInvitations(now())) >= MOST)
    throw new IdentityError('invitation.full')
  const secret = randomBytes(32).toString('base64url')
  const times = { createdAt: now(), expiresAt: now() + seconds * 1000 }
  const hash = hashOf(secret)
  const row: InvitationRow = { id: newId('i'), hash, ...about, by: by.id, ...times, closed: null }
  const { id, sub, renews, email, vendor, groups, expiresAt } = row
  const common = { at: now(), source: by.source, by: by.id, byParty: by.party }
  const told = { invitation: id, sub, renews, email, vendor, groups, expiresAt }
  const event = { code: 'invitation.create', ...common, ...told } as const
  const refusals = { exists: 'account.exists', full: 'invitation.full' } as const
  const add = async () => invitationStore.addInvitation(row, MOST)
  const outcome = await recordAct(log, [event], refusals, add)
  if (outcome !== 'added') throw new IdentityError(refusals[outcome])
  return { invitation: shown(row), secret }
}

async function revoke(
  { invitationStore, log, now }: InvitationsRoom,
  id: string,
  by: Actor,
): Promise<Invitation> {
  const before = await invitationStore.findInvitation({ id })
  if (before === undefined) throw new IdentityError('invitation.unknown')
  if (before.closed !== null) throw new IdentityError(`invitation.${before.closed.how}`)
  const common = { at: now(), source: by.source, by: by.id, byParty: by.party }
  const event = {
    code: 'invitation.revoke',
    ...common,
    invitation: id,
    email: before.email,
  } as const
  let after: InvitationRow | undefined
  const close = async () => {
    after = await invitationStore.closeInvitation(id, now())
    return after?.closed?.how ?? 'used'
  }
  const how = await recordAct(log, [event], { used: 'invitation.used' }, close)
  if (after === undefined || how !== 'revoked') throw new IdentityError('invitation.used')
  return shown(after)
}

/** The invitation that a secret opens, if it stands. Errors: invitation.unknown, .used, .expired, .revoked, .limit. */
async function standing(
  { store, invitationStore, now }: InvitationsRoom,
  secret: string,
  source: string,
): Promise<InvitationRow> {
  const key = `invitation:${source}`
  const { allowed } = await store.take([{ key, ...WRONG }], now())
  if (!allowed) throw new IdentityError('invitation.limit')
  const row = await invitationStore.findInvitation({ hash: hashOf(secret) })
  if (row === undefined) throw new IdentityError('invitation.unknown')
  // Whoever has a right secret guesses nothing, and is told what became of it.
  await store.settle([], [key])
  if (row.closed !== null) throw new IdentityError(`invitation.${row.closed.how}`)
  if (row.expiresAt <= now()) throw new IdentityError('invitation.expired')
  return row
}

async function questionFor(
  room: InvitationsRoom,
  { id, sub, email, name }: InvitationRow,
): Promise<Ceremony | null> {
  const { relyingParty } = room
  if (!mayHavePasskeys(relyingParty)) return null
  const challenge = randomBytes(32).toString('base64url')
  const options = await generateRegistrationOptions({
    rpName: 'Sallyport',
    rpID: relyingParty.id,
    userID: Uint8Array.from(Buffer.from(sub)),
    userName: email,
    userDisplayName: name,
    challenge: octets(challenge),
    timeout: TIMEOUT_MS,
    attestationType: 'none',
    // It will be the only proof: the authenticator must be able to say whose it is.
    authenticatorSelection: { residentKey: 'required', userVerification: 'required' },
    supportedAlgorithmIDs: [...ALGORITHMS],
  })
  const question = { kind: 'invited', sub, login: null, challenge, about: id } as const
  return { ...(await askOnce(room, question)), options }
}

async function accept(
  room: InvitationsRoom,
  secret: string,
  way: Way,
  source: string,
): Promise<Accepted> {
  const row = await standing(room, secret, source)
  // Since then a company's provider may have been entered whose people these are.
  if (!row.renews && (await room.idps.forAddress(row.email)) !== undefined)
    throw new IdentityError('invitation.company')
  const facts = row.renews ? await ownerOf(room, row) : factsOf(row)
  const proof = await proofOf(room, row, facts, way)
  const outcome = row.renews
    ? await renewed(room, row, proof, source)
    : await redeemed(room, accountOf(row, proof.password, room.now()), row, proof, source)
  // Withdrawn or run out between the look and the act.
  if (outcome === 'closed') await standing(room, secret, source)
  if (outcome !== 'redeemed' && outcome !== 'renewed') throw new IdentityError(REFUSALS[outcome])
  const account = await room.accounts.find(row.sub)
  if (account === undefined) throw new IdentityError('account.unknown')
  const { methods, acr } = proof
  return { account, methods, acr }
}

const REFUSALS = {
  taken: 'account.exists',
  exists: 'passkey.exists',
  gone: 'account.disabled',
  closed: 'invitation.used',
} as const

/** Whether another account has the passkey. */
async function isAnothers(
  { passkeyStore }: InvitationsRoom,
  passkey: PasskeyRow | null,
  renews: boolean,
): Promise<boolean> {
  const held = passkey === null ? undefined : await passkeyStore.findPasskey(passkey.id)
  return held !== undefined && !(renews && held.sub === passkey?.sub)
}

/** The account that is to be renewed, as it is now. Error: account.disabled. */
async function ownerOf({ accounts }: InvitationsRoom, { sub }: InvitationRow): Promise<Account> {
  const account = await accounts.find(sub)
  if (account === undefined || account.disabled) throw new IdentityError('account.disabled')
  return account
}

async function redeemed(
  room: InvitationsRoom,
  account: AccountRow,
  row: InvitationRow,
  { passkey }: Proof,
  source: string,
) {
  const { issuer, invitationStore, accounts, log, now } = room
  const { sub, email, party, vendor, roles, groups } = account
  // The log is told of no account that is known not to come of it.
  if ((await accounts.findByEmail(email)) !== undefined) return 'taken'
  if (await isAnothers(room, passkey, false)) return 'exists'
  const common = { at: now(), source, subject: `${issuer}|${sub}` }
  const by = `invitation:${row.id}`
  const facts = { email, party, vendor, roles, groups }
  const made = { code: 'account.create', ...common, by, ...facts } as const
  const redeem = async () => invitationStore.redeemInvitation(row.hash, account, passkey, now())
  return recordAct(log, [made, ...passkeyAdded(common, passkey)], REFUSALS, redeem)
}

async function renewed(
  room: InvitationsRoom,
  row: InvitationRow,
  { password, passkey }: Proof,
  source: string,
) {
  const { issuer, invitationStore, accounts, log, now } = room
  if (await isAnothers(room, passkey, true)) return 'exists'
  const common = { at: now(), source, subject: `${issuer}|${row.sub}` }
  const by = `invitation:${row.id}`
  const changes = { password: password === null ? 'removed' : 'changed', passkeys: 'removed' }
  const changed = { code: 'account.change', ...common, by, changes } as const
  const renew = async () => invitationStore.renewAccount(row.hash, password, passkey, now())
  const told = [changed, ...passkeyAdded(common, passkey)]
  const outcome = await recordAct(log, told, REFUSALS, renew)
  // Whoever was in by an old way is out with it, whatever happens to this process now; the sessions are told here.
  if (outcome === 'renewed')
    await accounts.endLogins(row.sub, { id: by, source }, 'password_changed')
  return outcome
}

function passkeyAdded(
  common: { readonly at: number; readonly source: string; readonly subject: string },
  passkey: PasskeyRow | null,
): readonly PasskeyEvent[] {
  if (passkey === null) return []
  const { id, name } = passkey
  return [{ code: 'passkey.add', ...common, by: common.subject, passkey: id, name }]
}

interface Proof {
  readonly password: string | null
  readonly passkey: PasskeyRow | null
  readonly methods: readonly string[]
  readonly acr: string
}

/** What the guest brought, checked. Errors: password.*, ceremony.unknown, passkey.refused, busy. */
async function proofOf(
  room: InvitationsRoom,
  row: InvitationRow,
  facts: Facts,
  way: Way,
): Promise<Proof> {
  if ('password' in way) {
    checkPassword(way.password, facts)
    const password = await room.passwords.hash(way.password)
    return { password, passkey: null, methods: ['pwd'], acr: ACR_PASSWORD }
  }
  const question = await takeUp(room, way.question)
  if (question.kind !== 'invited' || question.about !== row.id)
    throw new IdentityError('ceremony.unknown')
  const owned = { sub: row.sub, name: FIRST_PASSKEY, createdAt: room.now() }
  const { relyingParty } = room
  const passkey = await readNewPasskey(relyingParty, question.challenge, way.answer, owned)
  if (passkey === undefined)
    throw new IdentityError('passkey.refused', { fault: 'registration.invalid' })
  return { password: null, passkey, methods: [METHOD], acr: ACR_PASSKEY }
}

function factsOf({ email, name, vendor, groups }: InvitationRow): Facts {
  return { email, name, party: 'vendor', vendor, roles: ['vendor'], groups }
}

function accountOf(row: InvitationRow, password: string | null, now: number): AccountRow {
  const times = { createdAt: now, changedAt: now }
  const { sub } = row
  return { sub, ...factsOf(row), disabled: false, password, outside: null, person: sub, ...times }
}

/** Invitations that are opened and accepted: what a guest or an owner brings is checked, and the link used up with it. */
import { randomBytes } from 'node:crypto'
import { generateRegistrationOptions } from '@simplewebauthn/server'
import { ACR_PASSWORD } from '../attempt.ts'
import { IdentityError } from '../errors.ts'
import { recordAct, type PasskeyEvent } from '../events.ts'
import { checkPassword, type Account, type Facts } from '../facts.ts'
import { askOnce, takeUp, TIMEOUT_MS, type Ceremony } from '../passkeys/ceremony.ts'
import { ACR_PASSKEY, METHOD } from '../passkeys/credential.ts'
import { ALGORITHMS } from '../passkeys/key.ts'
import { mayHavePasskeys, octets, readNewPasskey } from '../passkeys/verify.ts'
import type { AccountRow, InvitationRow, PasskeyRow } from '../store.ts'
import { hashOf, type Accepted, type InvitationsRoom, type Way } from './invitation.ts'

/** Links that open nothing, from one source; one that does costs nothing. */
const WRONG = { limit: 20, windowMs: 10 * 60_000 }
const FIRST_PASSKEY = 'from the invitation'

/** The invitation that a secret opens, if it stands. Errors: invitation.unknown, .used, .expired, .revoked, .limit. */
export async function standing(
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

/** A question to the guest's authenticator; null where this gateway can have no passkeys. Error: ceremony.limit. */
export async function questionFor(
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

/** Errors: as `Invitations.accept`. */
export async function accept(
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
  const ways = { passkeys: 'removed', totp: 'removed' } as const
  const changes = { password: password === null ? 'removed' : 'changed', ...ways }
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

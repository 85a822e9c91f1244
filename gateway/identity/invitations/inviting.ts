/** Invitations that are made and withdrawn. */
import { randomBytes } from 'node:crypto'
import { newId } from '../../ids.ts'
import type { Actor } from '../account.ts'
import { IdentityError } from '../errors.ts'
import { recordAct } from '../events.ts'
import { checkFacts, newSub, normalise } from '../facts.ts'
import type { InvitationRow } from '../store.ts'
import {
  hashOf,
  shown,
  type Invitation,
  type InvitationsRoom,
  type NewInvitation,
} from './invitation.ts'

const HOUR_S = 3_600
/** How long an invitation stands: where nothing is said, at least, and at most. Seconds. */
const STANDS_S = { usual: 72 * HOUR_S, least: 600, most: 30 * 24 * HOUR_S } as const
/** Of those that stand; more are somebody's loop. */
const MOST = 1_000

/** A name to sign in with that no mail reaches (RFC 2606), of the letters of a person's name where it has such. */
function addressOf(name: string): string {
  const letters = name.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase()
  const words = letters.match(/[a-z0-9]+/g) ?? [`guest-${randomBytes(3).toString('hex')}`]
  return `${words.join('.').slice(0, 60)}@guest.invalid`
}

/** Errors: as `Invitations.invite`. */
export async function invite(
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

/** Errors: as `Invitations.renew`. */
export async function renew(
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

/** Errors: as `Invitations.revoke`. */
export async function revoke(
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

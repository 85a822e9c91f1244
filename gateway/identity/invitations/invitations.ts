/**
 * Invitations: an administrator says who may come in, and gets a link that does it once. A guest becomes an account, as
 * the invitation says; who has one and lost the way into it gets a new one, and the old ones end. What they bring is a
 * password or a passkey, and nothing else that they send counts. The store has the hash of the link's secret alone.
 */
import type { Actor } from '../account.ts'
import { accept, questionFor, standing } from './accepting.ts'
import type { Ceremony } from '../passkeys/ceremony.ts'
import {
  shown,
  type Accepted,
  type Invitation,
  type InvitationsRoom,
  type NewInvitation,
  type Way,
} from './invitation.ts'
import type { InvitationPlace } from '../store.ts'
import { invite, renew, revoke } from './inviting.ts'

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
  find(id: string): Promise<Invitation | undefined>
  /** Newest first, at most `limit`, behind `after`. */
  list(limit: number, after?: InvitationPlace): Promise<readonly Invitation[]>
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

export function openInvitations(room: InvitationsRoom): Invitations {
  const turns = new Map<string, Promise<unknown>>()
  return {
    invite: async (asked, by) => invite(room, asked, by),
    renew: async (sub, seconds, by) => renew(room, sub, seconds, by),
    async find(id) {
      const row = await room.invitationStore.findInvitation({ id })
      return row === undefined ? undefined : shown(row)
    },
    list: async (limit, after) =>
      (await room.invitationStore.listInvitations(limit, after)).map(shown),
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

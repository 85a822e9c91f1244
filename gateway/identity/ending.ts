/** The end of every login of a person: it waits for no disk, and comes as often as a company's provider likes. */
import { IdentityError } from './errors.ts'
import { record, type IdentityChange, type IdentityLog, type LogoutEvent } from './events.ts'
import type { IdentityStore, OidcStore } from './store.ts'

export interface EndingRoom {
  readonly issuer: string
  readonly store: Pick<IdentityStore, 'findAccount'>
  readonly oidcStore: OidcStore
  readonly log: IdentityLog
  readonly changed: (change: IdentityChange) => void
  /** Epoch milliseconds. */
  readonly now: () => number
  /** By person: what their company's provider asked for, while it is done. */
  readonly ending: Map<string, Promise<void>>
}

/**
 * What a company's provider asks for, as often as it likes, and unasked by anybody here: one after the other for one
 * person, and nothing is recorded where nobody is signed in, or the room kept back for ends could be spent on none.
 */
export async function endFromOutside(
  context: EndingRoom,
  sub: string,
  source: string | null,
): Promise<void> {
  const before = context.ending.get(sub) ?? Promise.resolve()
  const mine = before
    .catch(() => undefined)
    .then(async () => {
      const standing = await context.oidcStore.hasLogins(sub)
      if (standing) await endLogins(context, sub, 'backchannel', source)
      else context.changed({ kind: 'logged_out', subject: `${context.issuer}|${sub}`, login: null })
    })
  context.ending.set(sub, mine)
  try {
    await mine
  } finally {
    if (context.ending.get(sub) === mine) context.ending.delete(sub)
  }
}

/** Cuts first and reports a dead log afterwards: taking access away must not wait for a disk. */
export async function endLogins(
  context: EndingRoom,
  sub: string,
  reason: LogoutEvent['reason'],
  source: string | null,
): Promise<void> {
  const subject = `${context.issuer}|${sub}`
  const party = (await context.store.findAccount(sub))?.party ?? null
  const at = context.now()
  const event = { code: 'auth.logout', at, source, subject, party, login: null } as const
  const logged = await record(context.log, { ...event, reason }).then(
    () => undefined,
    (error: unknown) => ({ error }),
  )
  await context.oidcStore.endLoginsOf(sub)
  const kind = reason === 'disabled' ? 'disabled' : 'logged_out'
  context.changed({ kind, subject, login: null })
  if (logged !== undefined) throw new IdentityError('log.incomplete', { cause: logged.error })
}

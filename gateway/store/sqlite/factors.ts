/** Whether a second factor may land beside what an account has at that moment: asked in the transaction that adds it. */
import type { DatabaseSync } from 'node:sqlite'
import { mayAdd } from '../../identity/passkeys/credential.ts'
import type { FactorBy } from '../../identity/store.ts'

/** `ended`: the login that asked is over; `moved`: something is there by now that it has not shown; null: it may. */
export function whyNotAdd(
  db: DatabaseSync,
  sub: string,
  { login, shown }: FactorBy,
): 'ended' | 'moved' | null {
  // A reset ends the login, and nothing that it had under way lands after that.
  if (db.prepare('SELECT 1 FROM login WHERE login = ?').get(login) === undefined) return 'ended'
  const passkey = db.prepare('SELECT 1 FROM passkey WHERE sub = ?').get(sub) !== undefined
  const code = db.prepare('SELECT 1 FROM totp WHERE sub = ?').get(sub) !== undefined
  return mayAdd({ passkey, code }, shown) ? null : 'moved'
}

/**
 * Authenticator apps (RFC 6238): a second factor after the password, one an account. Enrolled by somebody who has just
 * proven who they are, confirmed by one code; a code is counted where passwords are, and each step is taken once.
 */
import type { Actor } from '../account.ts'
import type { Accounts } from '../accounts.ts'
import { IdentityError } from '../errors.ts'
import { recordAct, type IdentityChange, type IdentityLog } from '../events.ts'
import type { Account } from '../facts.ts'
import type { IdentityKeys } from '../keys.ts'
import { askOnce, lookUp, takeUp } from '../passkeys/ceremony.ts'
import { mayAdd } from '../passkeys/credential.ts'
import { countedNow, isOutdated, noteRemoval } from '../removal.ts'
import { openSecret, sealSecret } from '../sealing.ts'
import type { IdentityStore, OidcStore, PasskeyStore } from '../store.ts'
import type { Login, Subject } from '../subject.ts'
import {
  checkCode,
  codeCounters,
  type CheckRoom,
  type CodeAnswer,
  type CodeAttempt,
} from './check.ts'
import { newTotpSecret, readCode, stepOf, totpUri } from './code.ts'
import type { TotpRow, TotpStore } from './store.ts'

/** An authenticator app as its owner sees it. Instants are epoch milliseconds. */
export type Totp = Pick<TotpRow, 'name' | 'createdAt' | 'usedAt'>

/** What the page of an enrolment shows; whoever has the secret of its link sees it. */
export interface Enrolment {
  readonly email: string
  readonly name: string
  readonly uri: string
  /** Base 32. */
  readonly secret: string
}

export interface Totps {
  find(sub: string): Promise<Totp | undefined>
  /**
   * Begins an enrolment under `name`; the secret of its link is good for five minutes and one confirmation.
   * Errors: totp.stale, totp.password, ceremony.limit.
   */
  enrol(
    subject: Subject,
    login: Login,
    name: string,
  ): Promise<{ readonly secret: string; readonly expiresAt: number }>
  /** What an open enrolment shows. Errors: ceremony.unknown, account.disabled. */
  show(secret: string): Promise<Enrolment>
  /**
   * The first code: then the app is the account's, in place of the one before. A wrong one leaves the enrolment open.
   * Errors: ceremony.unknown, account.disabled, totp.code, totp.limit, totp.moved, log.unavailable.
   */
  confirm(secret: string, code: string, source: string): Promise<Enrolment>
  /** A question for a code in a sign-in under way, `about`; its secret finds it. Error: ceremony.limit. */
  ask(sub: string, about: string): Promise<string>
  /** The answer to such a question: recorded, then it counts. A wrong code leaves the question open. Errors: log.unavailable. */
  check(attempt: CodeAttempt): Promise<CodeAnswer>
  /** One's own. Errors: totp.none, log.unavailable. */
  remove(sub: string, by: Actor): Promise<void>
  /**
   * An administrator's: the app, then every login of the account; no enrolment under way lands afterwards.
   * Errors: log.unavailable; log.incomplete after they ended.
   */
  reset(sub: string, by: Actor): Promise<void>
}

export interface TotpOptions {
  readonly issuer: string
  /** The host that people know the gateway by: what an app shows. */
  readonly site: string
  readonly keys: Pick<IdentityKeys, 'cookies'>
  readonly totpStore: TotpStore
  readonly passkeyStore: Pick<PasskeyStore, 'passkeysOf'>
  readonly store: Pick<IdentityStore, 'take' | 'settle'>
  readonly oidcStore: OidcStore
  readonly accounts: Pick<Accounts, 'find' | 'hasPassword' | 'endLogins'>
  readonly log: IdentityLog
  /** Told after a removal holds. */
  readonly changed: (change: IdentityChange) => void
  /** Epoch milliseconds. */
  readonly now: () => number
}

/** Beside it, the locks that the log has heard of. */
type TotpRoom = TotpOptions & Pick<CheckRoom, 'toldLocks'>

/** How long after signing in an app may be enrolled. Seconds. */
const FRESH_S = 15 * 60
/** Wrong codes of one enrolment; its page shows the secret, so that this bounds work, not guesses. */
const CONFIRMING = { limit: 10, windowMs: 10 * 60_000 }

export function openTotps(options: TotpOptions): Totps {
  const room: TotpRoom = { ...options, toldLocks: new Map() }
  return {
    async find(sub) {
      const row = await room.totpStore.findTotp(sub)
      return row === undefined ? undefined : shown(row)
    },
    enrol: async (subject, login, name) => enrol(room, subject, login, name),
    show: async (secret) => (await opened(room, secret)).shown,
    confirm: async (secret, code, source) => confirm(room, secret, code, source),
    async ask(sub, about) {
      const question = { kind: 'code', sub, login: null, challenge: '', about } as const
      return (await askOnce(room, question)).secret
    },
    check: async (attempt) => checkCode(room, attempt),
    async remove(sub, by) {
      if (!(await remove(room, sub, by))) throw new IdentityError('totp.none')
      room.changed({ kind: 'changed', subject: `${room.issuer}|${sub}`, login: null })
    },
    async reset(sub, by) {
      try {
        await remove(room, sub, by)
      } finally {
        // Also where there is none to remove: a thief may have removed it.
        await room.accounts.endLogins(sub, by)
      }
      // What was enrolled while the other was removed: the logins that could enrol another are gone.
      if (await remove(room, sub, by)) await room.accounts.endLogins(sub, by)
    },
  }
}

const shown = ({ name, createdAt, usedAt }: TotpRow): Totp => ({ name, createdAt, usedAt })

async function enrol(room: TotpOptions, subject: Subject, login: Login, name: string) {
  const sub = subject.id.slice(room.issuer.length + 1)
  // It is asked for after a password: of who has none (a company's people, guests with a passkey) it never would be.
  if (!(await room.accounts.hasPassword(sub))) throw new IdentityError('totp.password')
  const [held, passkeys] = await Promise.all([
    room.totpStore.findTotp(sub),
    room.passkeyStore.passkeysOf(sub),
  ])
  const fresh = room.now() / 1000 - subject.authn.at <= FRESH_S
  const begun = await countedNow(room, sub, subject.authn)
  const there = { passkey: passkeys.length > 0, code: held !== undefined }
  if (!fresh || !mayAdd(there, begun.shown)) throw new IdentityError('totp.stale')
  const [key = ''] = room.keys.cookies
  const challenge = sealSecret(newTotpSecret(), sub, key, 'totp')
  const about = JSON.stringify({ name, replaces: held?.createdAt ?? null } satisfies About)
  return askOnce(room, { kind: 'enrol_totp', sub, login, challenge, about, begun })
}

interface About {
  readonly name: string
  readonly replaces: number | null
}

/** The enrolment that a secret opens. Errors: ceremony.unknown, account.disabled. */
async function opened(room: TotpOptions, link: string) {
  const question = await lookUp(room, link)
  if (question.kind !== 'enrol_totp') throw new IdentityError('ceremony.unknown')
  const account = await room.accounts.find(question.sub)
  if (account === undefined || account.disabled) throw new IdentityError('account.disabled')
  const secret = openSecret(question.challenge, question.sub, room.keys.cookies, 'totp')
  if (secret === undefined) throw new IdentityError('ceremony.unknown')
  const about = JSON.parse(question.about) as About
  const { email } = account
  const uri = totpUri(secret, room.site, email)
  const page: Enrolment = { email, name: about.name, uri, secret }
  return { question, account, about, shown: page }
}

async function confirm(
  room: TotpOptions,
  link: string,
  typed: string,
  source: string,
): Promise<Enrolment> {
  const { question, account, about, shown: page } = await opened(room, link)
  const { sub, login, challenge } = question
  const counted = [{ key: `totp-enrol:${sub}`, ...CONFIRMING }]
  if (!(await room.store.take(counted, room.now())).allowed) throw new IdentityError('totp.limit')
  const code = readCode(typed)
  const step = code === undefined ? undefined : stepOf(page.secret, code, room.now())
  if (step === undefined) throw new IdentityError('totp.code')
  await takeUp(room, link)
  const at = room.now()
  const row: TotpRow = {
    sub,
    name: about.name,
    sealed: challenge,
    step,
    createdAt: at,
    usedAt: null,
  }
  const { begun } = question
  const by = { login: login?.login ?? '', shown: begun?.shown ?? null }
  const put = async () =>
    begun !== undefined && (await isOutdated(room, sub, begun))
      ? 'moved'
      : await room.totpStore.putTotp(row, about.replaces, by)
  const outcome = await recordAct(
    room.log,
    [event(room, 'totp.add', account, row, source)],
    NOT_ADDED,
    put,
  )
  if (outcome !== 'added') throw new IdentityError(NOT_ADDED[outcome])
  await room.store.settle([`totp-enrol:${sub}`, ...codeCounters(sub)], [])
  return page
}

const NOT_ADDED = { ended: 'ceremony.unknown', moved: 'totp.moved' } as const

function event(
  { issuer, now }: TotpOptions,
  code: 'totp.add' | 'totp.remove',
  { sub }: Pick<Account, 'sub'>,
  { name }: Pick<TotpRow, 'name'>,
  source: string | null,
) {
  const subject = `${issuer}|${sub}`
  return { code, at: now(), source, by: subject, subject, totp: name } as const
}

/** False where there was none. */
async function remove(room: TotpOptions, sub: string, by: Actor): Promise<boolean> {
  const row = await room.totpStore.findTotp(sub)
  if (row === undefined) return false
  const told = event(room, 'totp.remove', row, row, by.source)
  const refusals = { none: 'totp.none' } as const
  const act = async () => {
    await noteRemoval(room, sub)
    return (await room.totpStore.removeTotp(sub)) ? 'removed' : 'none'
  }
  const outcome = await recordAct(
    room.log,
    [{ ...told, by: by.id, byParty: by.party }],
    refusals,
    act,
  )
  return outcome === 'removed'
}

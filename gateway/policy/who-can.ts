/** Who could open a session to one process right now, by asking policy about every account. */
import { setImmediate } from 'node:timers/promises'
import { expiresAt, type Grant } from '../grants/grant.ts'
import { during } from '../grants/window.ts'
import type { Account, Identity, Subject } from '../identity/index.ts'
import type { Source } from '../facts.ts'
import { Refusal } from '../problem.ts'
import { usable } from '../sessions/uses.ts'
import { findTarget, sessionFacts, type SessionRoom } from '../sessions/room.ts'

/** One process, and where the page begins: after this account, or at the beginning. */
export interface WhoCanAt {
  readonly device: string
  readonly process: string
  readonly after?: string | undefined
}

interface Answer {
  readonly person: string
  readonly party: string
  readonly vendor: string | null
  readonly effect: string
  readonly codes: string[]
  readonly grant: string | null
}

/** Accounts a page asks about. */
const PAGE = 500
const SLICE_MS = 8

/**
 * Takes the names of device and process, and which page. Gives a line for each enabled account of the
 * page, those who may first, and where the next page begins.
 * Everybody counts as freshly signed in with a password, from the address of whoever asks: what a
 * second factor would change is in the codes. Nothing is recorded. Throws Refusal `target.unknown`.
 */
export async function whoCan(
  room: SessionRoom,
  identity: Pick<Identity, 'accounts' | 'issuer'>,
  { after = '', ...at }: WhoCanAt,
  source: Source,
): Promise<{
  device: string
  process: string
  at: number
  items: Answer[]
  next: string | null
}> {
  const target = await findTarget(room, at.device, at.process)
  if (target === undefined)
    throw new Refusal('target.unknown', `no process ${at.device}/${at.process} is registered`, {
      nextStep: 'see `sallyport device list` and `sallyport process list`',
    })
  const now = room.now()
  const listener = target.presence?.listeners.get(at.process) ?? null
  const items: Answer[] = []
  let began = performance.now()
  const accounts = await identity.accounts.list(after, PAGE)
  for (const account of accounts) {
    if (account.disabled) continue
    const subject = subjectOf(account, identity.issuer, now)
    const grants = await held(room, subject, at, now)
    // Nobody at the device has been asked: where that must be, it is what everybody lacks.
    const facts = sessionFacts(subject, source, { ...target, consent: null }, grants, listener)
    const decision = room.decisions.weigh('session.open', facts)
    const said = (decision.allow ? decision.reasons : decision.denials).map(({ code }) => code)
    // A session stands on a grant, whatever policy would allow without one: opening it answers the same.
    const grantless =
      decision.allow && usable(grants, Math.floor(now / 1000), room.allotments) === undefined
    items.push({
      person: account.email,
      party: account.party,
      vendor: account.vendor,
      effect: grantless ? 'challenge' : decision.effect,
      codes: grantless ? ['grant.none'] : said,
      grant: grants[0]?.statement.id ?? null,
    })
    if (performance.now() - began > SLICE_MS) {
      await setImmediate()
      began = performance.now()
    }
  }
  items.sort((a, b) => Number(b.effect === 'allow') - Number(a.effect === 'allow'))
  const next = accounts.length < PAGE ? null : (accounts.at(-1)?.sub ?? null)
  return { ...at, at: Math.floor(now / 1000), items, next }
}

async function held(
  room: SessionRoom,
  subject: Subject,
  at: { readonly device: string; readonly process: string },
  now: number,
): Promise<readonly Grant[]> {
  const all = await room.grants.applicable(subject.id, at.device, Math.floor(now / 1000))
  const named = all
    .filter(({ statement }) => statement.processes.includes(at.process))
    .map((grant) => during(grant, Math.floor(now / 1000)))
  const live = usable(named, Math.floor(now / 1000), room.allotments)
  if (live !== undefined) return [live]
  return named.toSorted((a, b) => rank(b, now) - rank(a, now)).slice(0, 1)
}

/** Live grants first, then the one that ends last. */
function rank(grant: Grant, now: number): number {
  const live = grant.state === 'approved' || grant.state === 'active'
  return (live && expiresAt(grant) * 1000 > now ? 1e12 : 0) + expiresAt(grant)
}

function subjectOf(account: Account, issuer: string, now: number): Subject {
  const seconds = Math.floor(now / 1000)
  return {
    id: `${issuer}|${account.sub}`,
    issuer,
    kind: 'human',
    party: account.party,
    vendor: account.vendor,
    email: account.email,
    groups: account.groups,
    roles: account.roles,
    token_exp: seconds + 3600,
    authn: { methods: ['pwd'], acr: '', at: seconds },
    claims: {},
    break_glass: null,
  }
}

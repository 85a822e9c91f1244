/**
 * What people are told of without having asked: worked out from what is stored, so that nothing is forgotten by a crash and
 * nothing told twice. Pure: grants, reviews and the instant are arguments.
 */
import { instantInZone } from '#approval'
import { beginsAt, expiresAt, shownState, type Grant } from '../grants/grant.ts'
import { during } from '../grants/window.ts'
import type { Review } from '../grants/review.ts'

/**
 * For each kind, who reads it: those who may approve, those who may supervise, the holder of the grant, or who may approve
 * and whoever is named for alarms.
 */
export const KINDS = {
  'grant.requested': 'approvers',
  'grant.approved': 'holder',
  'grant.refused': 'holder',
  'grant.ending': 'holder',
  'session.unwatched': 'supervisors',
  'break_glass.requested': 'alarm',
  'break_glass.opened': 'alarm',
  'break_glass.review_due': 'alarm',
} as const
export type NoticeKind = keyof typeof KINDS

export interface Notice {
  /** The same for the same happening, whenever it is looked at. */
  readonly key: string
  readonly kind: NoticeKind
  /** When it happened, epoch seconds. */
  readonly at: number
  readonly grant: Grant
  /** The session that it is about. */
  readonly session?: string
  /** What its key begins with where few with that beginning are told. */
  readonly series?: string
}

/** A session that waits for a supervisor, since `at` (epoch seconds). */
export interface Unwatched {
  readonly session: string
  readonly grant: string
  readonly at: number
}

const DAY_S = 86_400
/** What is older when it is first looked at is no news: a node that was down, or was not told to send notices. */
const NEWS_S: Readonly<Record<NoticeKind, number>> = {
  'grant.requested': 7 * DAY_S,
  'grant.approved': DAY_S,
  'grant.refused': DAY_S,
  'grant.ending': DAY_S,
  // Then it has ended, for nobody came.
  'session.unwatched': 300,
  'break_glass.requested': 7 * DAY_S,
  'break_glass.opened': 7 * DAY_S,
  'break_glass.review_due': 366 * DAY_S,
}
/** A review that is due is told of again so often. */
const REMIND_S = 30 * DAY_S
/** So long before the end of a grant its holder is told, where it lasts twice as long at least. */
const ENDING_S = 900
/** Of the sessions of one grant that wait, `MOST_OF_SERIES` are told of in so long: who opens a hundred fills no mailbox. */
const UNWATCHED_S = 900
export const MOST_OF_SERIES = 3

/** Everything that there is to tell at `now` (epoch seconds), whether told before or not; alarms first. */
export function noticesOf(
  grants: readonly Grant[],
  reviews: readonly Review[],
  now: number,
  waiting: readonly Unwatched[] = [],
): readonly Notice[] {
  const byId = new Map(grants.map((grant) => [grant.statement.id, grant]))
  const alarms = reviews.flatMap((review): Notice[] => {
    const { grant: id, opened_at, due_at, closed } = review
    const grant = byId.get(id)
    if (grant === undefined || closed !== null) return []
    const opened = {
      key: `opened ${id}`,
      kind: 'break_glass.opened',
      at: opened_at,
      grant,
    } as const
    // Each time a message of its own: one that has the id of the last is thrown away as sent twice.
    const times = Math.floor((now - due_at) / REMIND_S)
    const key = times === 0 ? `due ${id}` : `due ${id} ${times}`
    const due = { key, kind: 'break_glass.review_due', at: due_at, grant } as const
    return due_at <= now ? [opened, due] : [opened]
  })
  const unwatched = waiting.flatMap(({ session, grant: id, at }): Notice[] => {
    const grant = byId.get(id)
    if (grant === undefined) return []
    const series = `unwatched ${id} ${Math.floor(at / UNWATCHED_S)} `
    const key = `${series}${session} ${at}`
    return [{ key, kind: 'session.unwatched', at, grant, session, series }]
  })
  const all = [...alarms, ...unwatched, ...grants.flatMap((grant) => ofGrant(grant, now))]
  const news = all.filter(({ kind, at }) => at > now - NEWS_S[kind])
  const asked = pendingOf(news)
  const told = news.filter((notice) => !REQUESTS.has(notice.kind) || asked.has(notice))
  return [...told.filter(isUrgent), ...told.filter((notice) => !isUrgent(notice))]
}

/** Whether at `now` (epoch seconds) there is nothing left to do of what a message asks for, so that it is not sent late. */
export function isPast({ kind, at }: Pick<Message, 'kind' | 'at'>, now: number): boolean {
  return kind === 'session.unwatched' && at <= now - NEWS_S[kind]
}

/** Whether it is an alarm, that goes before all else. */
export function isUrgent({ kind }: Pick<Notice, 'kind'>): boolean {
  return KINDS[kind] === 'alarm'
}

const REQUESTS: ReadonlySet<NoticeKind> = new Set(['grant.requested', 'break_glass.requested'])
/** So many requests of one person are told while none is decided: whoever asks a thousand times fills no mailbox. */
const MOST_PENDING = 10

/** Of each person's requests the oldest, and beside them of those to break one seal: no other request keeps these back. */
function pendingOf(notices: readonly Notice[]): ReadonlySet<Notice> {
  const requests = notices.filter(({ kind }) => REQUESTS.has(kind))
  const byPerson = Map.groupBy(
    requests.toSorted((a, b) => a.at - b.at),
    ({ grant: { statement } }) => `${statement.unseals?.grant ?? ''} ${statement.requester}`,
  )
  return new Set([...byPerson.values()].flatMap((theirs) => theirs.slice(0, MOST_PENDING)))
}

function ofGrant(grant: Grant, now: number): Notice[] {
  const { id, created_at: asked, not_before, sealed, unseals, extends: longer } = grant.statement
  const notice = (kind: NoticeKind, at: number, key: string = kind): Notice => ({
    key: `${key} ${id}`,
    kind,
    at,
    grant,
  })
  const shown = shownState(grant, now)
  if (shown === 'requested')
    return [notice(unseals === undefined ? 'grant.requested' : 'break_glass.requested', asked)]
  if (shown === 'rejected' || shown === 'revoked') {
    const { at = 0, by, reason = '' } = grant.ended ?? {}
    // What its holder did, or has instead, is no news to them.
    const own = by === grant.statement.requester || reason.startsWith('superseded by ')
    return own ? [] : [notice('grant.refused', at)]
  }
  if (shown !== 'approved' && shown !== 'active') return []
  const approved = notice('grant.approved', grant.approvals.at(-1)?.at ?? asked)
  const end = expiresAt(grant)
  const long = end - (grant.first_used_at ?? not_before) >= 2 * ENDING_S
  const ending = long && sealed === undefined && longer === undefined && now >= end - ENDING_S
  return ending ? [approved, notice('grant.ending', end - ENDING_S, `ending ${end}`)] : [approved]
}

/** A message as it is kept until it is sent: strings and numbers alone. */
export interface Message {
  readonly v: 1
  readonly kind: NoticeKind
  readonly at: number
  readonly grant: string
  readonly session?: string
  readonly device: string
  readonly processes: readonly string[]
  readonly holder: string
  readonly reason: string
  readonly until: number
  readonly subject: string
  readonly text: string
}

const instant = (at: number) => new Date(at * 1000).toISOString().replace('.000Z', 'Z')
/** Words that strangers chose: on one line, and nothing in them that is not text. */
const plain = (text: string) => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').slice(0, 500)

/** For each kind: its subject, the first sentence, and the one step that it asks for. */
const WORDS: Readonly<
  Record<NoticeKind, (id: string, where: string) => readonly [string, string, string]>
> = {
  'grant.requested': (id, where) => [
    `Approval asked for ${where}`,
    `Access to ${where} waits for your approval.`,
    `Look at it and approve: sallyport approve ${id}`,
  ],
  'grant.approved': (id, where) => [
    `Access to ${where} is approved`,
    `Your grant for ${where} is approved.`,
    `Connect: sallyport connect ${where.split(',')[0]} --listen 127.0.0.1:0 --grant ${id}`,
  ],
  'grant.refused': (id, where) => [
    `Access to ${where} is refused or withdrawn`,
    `Your grant for ${where} was refused or withdrawn.`,
    `See why: sallyport grant show ${id}`,
  ],
  'grant.ending': (id, where) => [
    `Access to ${where} ends soon`,
    `Your grant for ${where} ends in less than 15 minutes, and open sessions with it.`,
    `For more time: sallyport extend ${id} --for 30m --reason …`,
  ],
  'session.unwatched': (_id, where) => [
    `Supervision asked for ${where}`,
    `A session on ${where} is held until somebody supervises it, and ends when nobody has come in five minutes.`,
    'Watch it and answer for it: sallyport session watch SESSION --supervise',
  ],
  'break_glass.requested': (id, where) => [
    `EMERGENCY: a seal is to be broken on ${where}`,
    `Break-glass: somebody asks to be let into ${where} in an emergency, and waits for signatures.`,
    `Look at it and sign with a passkey: sallyport approve ${id}`,
  ],
  'break_glass.opened': (id, where) => [
    `ALARM: break-glass on ${where}`,
    `A seal was broken: ${where} is open in an emergency.`,
    `Watch: sallyport sessions. End it: sallyport revoke ${id} --reason …`,
  ],
  'break_glass.review_due': (id, where) => [
    `Review due: break-glass on ${where}`,
    `The review of the seal that was broken on ${where} is due, and nobody has closed it.`,
    `Close it, if you were not inside: sallyport break-glass review ${id} --note …`,
  ],
}

/** What the holder of a grant does with it, as it was approved at `at`: where there is nothing to connect to, no such command. */
function stepOf({ grant, at }: Notice, connect: string): string {
  const { id, extends: longer, sealed, recurring, ot_level: level } = grant.statement
  if (longer !== undefined)
    return `Your grant ${longer.grant} lasts longer, until ${instant(expiresAt(grant))} at most; go on under that one.`
  if (sealed !== undefined)
    return `It opens nothing. In an emergency: sallyport break-glass open ${id} --reason …`
  if (level === 2)
    return `Sessions under your grant to read there may write meanwhile: sallyport grant show ${id}`
  const from = beginsAt(during(grant, at))
  if (from <= at) return connect
  return `It opens ${instantInZone(from, recurring?.tz ?? 'UTC')}. Then ${connect.replace('Connect:', 'connect:')}`
}

/** A broken seal is not made longer: what goes on after it is asked for like anything else. */
function endingOf({ grant }: Notice, extend: string): string {
  const { unseals, devices, processes } = grant.statement
  if (unseals === undefined) return extend
  const where = `${devices[0]}/${processes[0]}`
  return `It is not made longer. If more is to be done: sallyport request ${where} --for 30m --reason …`
}

/** What depends on what it is about. */
const STEPS: Readonly<Partial<Record<NoticeKind, (notice: Notice, usual: string) => string>>> = {
  'grant.approved': stepOf,
  'grant.ending': endingOf,
  'session.unwatched': ({ session = '' }, usual) => usual.replace('SESSION', session),
}

/** The message of a notice; `origin` is where people reach the gateway. */
export function messageOf(notice: Notice, origin: string): Message {
  const { kind, at, grant, session } = notice
  const { id, devices, processes, reason, requester, ticket } = grant.statement
  const where = `${devices.join(',')}/${processes.join(',')}`
  const [subject, first, usual] = WORDS[kind](id, where)
  const step = STEPS[kind]?.(notice, usual) ?? usual
  const holder = plain(grant.requester_email ?? requester)
  const until = expiresAt(grant)
  const why = kind === 'grant.refused' ? plain(grant.ended?.reason ?? '') : ''
  const lines = [
    first,
    '',
    `  who     ${holder}`,
    `  until   ${instant(until)}`,
    `  reason  ${plain(reason)}`,
    ...(ticket === null ? [] : [`  ticket  ${plain(ticket)}`]),
    ...(why === '' ? [] : [`  said    ${why}`]),
    `  grant   ${id}`,
    ...(session === undefined ? [] : [`  session ${session}`]),
    '',
    step,
    '',
    `Sallyport at ${origin}. Reason and ticket are in the words of whoever asked.`,
  ]
  return {
    v: 1,
    kind,
    at,
    grant: id,
    ...(session === undefined ? {} : { session }),
    device: devices.join(','),
    processes,
    holder,
    reason: plain(reason),
    until,
    subject,
    text: `${lines.join('\n')}\n`,
  }
}

const FIRST_MS = 15_000
/** The longest pause. Milliseconds. */
export const LONGEST_MS = 3_600_000

/** How long to wait after so many failures, 1 and more. Milliseconds. */
export function pauseAfter(failures: number): number {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 20))
}

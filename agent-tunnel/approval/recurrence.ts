/**
 * Windows that come back: some minutes of the wall clock, on some days of the week, in one time zone. Pure: the instant is
 * an argument. A time that the clocks skip is the instant at which they do, one that comes twice is its first.
 */

/** Minutes count from midnight; `to_min` above 1440 is on the next day. */
export interface Recurrence {
  /** A zone of the IANA database, as `Europe/Berlin`. */
  readonly tz: string
  /** 0 is Sunday; ascending, each once. */
  readonly days: readonly number[]
  readonly from_min: number
  readonly to_min: number
}

/** One of its windows, in epoch seconds; `until` is its first second no more. */
export interface Period {
  readonly from: number
  readonly until: number
}

/** When a window may be at all. Epoch seconds. */
interface Bounds {
  readonly not_before: number
  readonly not_after: number
}

const DAY_MIN = 1440
/** A week, the day before, and a week more where the clocks skip the whole of a window. */
const DAYS_AHEAD = 15

function isZone(value: unknown): value is string {
  // An offset is no place: it would not follow the clocks there.
  if (typeof value !== 'string' || !/^[A-Za-z][\w+/-]{0,63}$/.test(value)) return false
  try {
    // Of what works windows out, and not of Intl, which knows more names.
    Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(value)
    return true
  } catch {
    return false
  }
}

const isBetween = (least: number, value: unknown, most: number): value is number =>
  Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most

/** Whether it is one that a statement may hold: its windows are shorter than a day, so that no two meet. */
export function isRecurrence(value: unknown): value is Recurrence {
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 4) return false
  const {
    tz,
    days,
    from_min: from,
    to_min: to,
  } = value as Partial<Record<keyof Recurrence, unknown>>
  if (!Array.isArray(days) || days.length < 1 || !isZone(tz)) return false
  const inOrder = days.every(
    (day: unknown, at) => isBetween(0, day, 6) && (at === 0 || Number(days[at - 1]) < day),
  )
  return inOrder && isBetween(0, from, DAY_MIN - 1) && isBetween(from + 1, to, from + DAY_MIN - 1)
}

function instantOf(day: Temporal.PlainDate, minute: number, tz: string): number {
  const date = day.add({ days: Math.floor(minute / DAY_MIN) })
  const hour = Math.floor((minute % DAY_MIN) / 60)
  const wanted = date.toPlainDateTime({ hour, minute: minute % 60 })
  const zoned = wanted.toZonedDateTime(tz, { disambiguation: 'earlier' })
  const skipped = !zoned.toPlainDateTime().equals(wanted)
  const exact = skipped ? (zoned.getTimeZoneTransition('next') ?? zoned) : zoned
  return Math.floor(exact.epochMilliseconds / 1000)
}

/**
 * The window that is open at `now` (epoch seconds), or else the next one that opens; undefined where none is left before
 * `not_after`.
 */
export function periodAt(
  { tz, days, from_min, to_min }: Recurrence,
  { not_before, not_after }: Bounds,
  now: number,
): Period | undefined {
  const at = Math.max(now, not_before)
  if (at >= not_after) return undefined
  const today = Temporal.Instant.fromEpochMilliseconds(at * 1000).toZonedDateTimeISO(tz)
  // What is open now may have begun the day before.
  let day = today.toPlainDate().subtract({ days: 1 })
  for (let ahead = 0; ahead <= DAYS_AHEAD; ahead++, day = day.add({ days: 1 })) {
    if (!days.includes(day.dayOfWeek % 7)) continue
    const from = Math.max(not_before, instantOf(day, from_min, tz))
    const until = Math.min(not_after, instantOf(day, to_min, tz))
    if (from < until && at < until) return from < not_after ? { from, until } : undefined
  }
  return undefined
}

/** The first window that opens after `now`, whatever is open then; undefined where none will. */
export function nextPeriod(rule: Recurrence, bounds: Bounds, now: number): Period | undefined {
  const period = periodAt(rule, bounds, now)
  return period === undefined || period.from > now ? period : periodAt(rule, bounds, period.until)
}

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']

const clock = (minute: number) =>
  `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`

/** For people who must judge it: `every Tuesday 02:00 to 04:00, Europe/Berlin`. */
export function recurrenceInWords({ tz, days, from_min: from, to_min: to }: Recurrence): string {
  const names = days.length === 7 ? 'day' : days.map((day) => DAYS[day] ?? '').join(', ')
  const end = to > DAY_MIN ? `${clock(to - DAY_MIN)} the next day` : clock(to)
  return `every ${names} ${clock(from)} to ${end}, ${tz}`
}

/** An instant (epoch seconds) as clocks there show it: `Tue 2026-12-01 02:00 Europe/Berlin (2026-12-01T01:00:00Z)`. */
export function instantInZone(at: number, tz: string): string {
  const zoned = Temporal.Instant.fromEpochMilliseconds(at * 1000).toZonedDateTimeISO(tz)
  const day = (DAYS[zoned.dayOfWeek % 7] ?? '').slice(0, 3)
  const utc = new Date(at * 1000).toISOString().replace('.000Z', 'Z')
  return `${day} ${zoned.toPlainDate().toString()} ${clock(zoned.hour * 60 + zoned.minute)} ${tz} (${utc})`
}

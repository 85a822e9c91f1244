/**
 * Grants that do not hold all the time, for their window comes back or they are sealed: what counts at an instant. Pure.
 * Whoever decides about sessions asks for the grant `during` an instant; what was not asked so opens nothing.
 */
import {
  instantInZone,
  isRecurrence,
  nextPeriod,
  periodAt,
  type Period,
  type Statement,
} from '#approval'
import { Refusal } from '../problem.ts'
import { termsOf, type Grant } from './grant.ts'

/** As long as all windows of one grant may span. */
const LONGEST_S = 366 * 86_400

const boundsOf = (grant: Grant) => ({
  not_before: grant.statement.not_before,
  not_after: termsOf(grant).not_after,
})

/**
 * The grant as it stands at `now` (epoch seconds): of one that comes back, the window that is open or opens next; one
 * that has none left stands in an empty window, which is over, and one that is sealed in one that never begins. Others are
 * given as they are.
 */
export function during(grant: Grant, now: number): Grant {
  const { recurring, not_before, not_after, sealed } = grant.statement
  if (sealed !== undefined) return { ...grant, period: { from: not_after, until: not_after } }
  if (recurring === undefined) return grant
  const over = { from: not_before, until: not_before }
  return { ...grant, period: periodAt(recurring, boundsOf(grant), now) ?? over }
}

/** When it can be used next, of what cannot be at `now` (epoch seconds): the window that opens, or its beginning; undefined: never. */
export function opensNext(grant: Grant, now: number): Period | undefined {
  const { recurring, sealed } = grant.statement
  if (sealed !== undefined) return undefined
  if (recurring !== undefined) return nextPeriod(recurring, boundsOf(grant), now)
  const { not_before: from, not_after: until } = boundsOf(grant)
  return from > now ? { from, until } : undefined
}

/** When that is, for whoever waits for it, by the clocks of its zone, or what opens it; undefined where it is never. */
export function opensInWords(grant: Grant, now: number): string | undefined {
  const { id, sealed, not_after: end } = grant.statement
  if (sealed !== undefined)
    return now < end ? `it is sealed: sallyport break-glass open ${id} --reason …` : undefined
  const next = opensNext(grant, now)
  if (next === undefined) return undefined
  const { recurring } = grant.statement
  return `it opens ${instantInZone(next.from, recurring?.tz ?? 'UTC')}`
}

/** Why these windows are none that can be asked for, or undefined. */
export function recurrenceFault({
  recurring,
  ot_level: level,
  not_before,
  not_after,
}: Pick<Statement, 'recurring' | 'ot_level' | 'not_before' | 'not_after'>): Refusal | undefined {
  const no = (detail: string, nextStep: string) => new Refusal('grant.window', detail, { nextStep })
  if (recurring === undefined) return undefined
  if (!isRecurrence(recurring))
    return no(
      'such windows are shorter than a day, on days in order, in a zone like Europe/Berlin',
      'sallyport request … --every "Tue 02:00-04:00" --zone Europe/Berlin --until TIME',
    )
  if (level === 2)
    return no(
      'a grant to write does not come back by itself',
      'ask to write when the window is open, for as long as it takes',
    )
  if (not_after - not_before > LONGEST_S)
    return no('windows come back for 366 days at most', 'ask anew when they are over')
  return periodAt(recurring, { not_before, not_after }, not_before) === undefined
    ? no('there is no such window in that time', 'end later: --until TIME')
    : undefined
}

/** How long one of its windows is, as clocks show it; of others, their whole duration. Seconds. */
export function longestUse({ recurring, max_duration_s }: Statement): number {
  if (recurring === undefined) return max_duration_s
  return Math.min(max_duration_s, (recurring.to_min - recurring.from_min) * 60)
}

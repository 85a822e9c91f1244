/** A grant in words, for people: what was asked, when it may be used, what is counted, who is to do what next. */
import type { Grant } from '#api'
import { usage } from './exit.ts'
import { facts, instant } from './print.ts'

export function grantId(text: string): string {
  if (/^g_[0-9a-z]{26}$/.test(text)) return text
  throw usage(
    `${JSON.stringify(text)} is not the id of a grant`,
    'ids look like g_… and stand in `sallyport grants`',
  )
}

export function nextApproval(grant: Grant): string {
  const waiting = grant.approvals_needed - grant.approvals.length
  return `${waiting === 1 ? 'an approver runs' : `${waiting} approvers run`} sallyport approve ${grant.id}`
}

/** `ot_level` 0, 1, 2: what may be done on protocols that Sallyport understands. */
export const LEVELS = ['nothing', 'read', 'read and write']

/** What was asked and what became of it, for people. */
export async function grantFacts(grant: Grant): Promise<string[]> {
  const { windowsInWords } = await import('#approval')
  return facts([
    ['who', grant.requester_email ?? grant.requester],
    ['company', grant.vendor],
    ['where', `${grant.device}/${grant.processes.join(',')}`],
    ['may', LEVELS[grant.ot_level] ?? `level ${grant.ot_level}`],
    ['addresses', windowsInWords(grant.ot_windows ?? []) || 'all'],
    ['how long', `${grant.duration_s} s from the first use`],
    ['window', `${instant(grant.not_before)} to ${instant(grant.not_after)}`],
    ...(await recurrenceFacts(grant)),
    ...countFacts(grant),
    ...otherFacts(grant),
    ['reason', grant.reason],
    ['ticket', grant.ticket],
    ['approvals', `${grant.approvals.length} of ${grant.approvals_needed}`],
    ['statement', grant.hash],
  ])
}

/** When its windows are, and the one that is open or opens next. */
async function recurrenceFacts({ recurring, opens }: Grant): Promise<[string, string | null][]> {
  if (recurring === null || recurring === undefined) return []
  const { instantInZone, recurrenceInWords } = await import('#approval')
  const { from = 0, until = 0 } = opens ?? {}
  const next =
    until === 0
      ? 'never again'
      : `${instantInZone(from, recurring.tz)} to ${instantInZone(until, recurring.tz)}`
  return [
    ['only', recurrenceInWords(recurring)],
    ['opens', next],
  ]
}

/** Which other grant it bears on, and which one on it. */
function otherFacts({
  extends: extended,
  supersedes,
  extension,
  sealed,
  unseals,
}: Grant): [string, string | null][] {
  const rows: [string, string | null][] = []
  if (typeof extended === 'string') rows.push(['extends', extended])
  if (typeof supersedes === 'string') rows.push(['instead of', supersedes])
  if (typeof sealed === 'number') rows.push(['sealed', `until ${sealed} people break the seal`])
  if (typeof unseals === 'string') rows.push(['BREAKS THE SEAL OF', unseals])
  if (extension !== null && extension !== undefined)
    rows.push([
      'extended',
      `by ${extension.grant}: ${extension.duration_s} s from the first use, to ${instant(extension.not_after)}`,
    ])
  return rows
}

/** What is counted, where it is limited, and how much of it there was. */
function countFacts({
  max_uses,
  max_bytes,
  uses = 0,
  bytes = 0,
}: Grant): [string, string | null][] {
  return [
    ['sessions', typeof max_uses === 'number' ? `${uses} of ${max_uses}` : null],
    ['bytes', typeof max_bytes === 'number' ? `${bytes} of ${max_bytes}` : null],
  ]
}

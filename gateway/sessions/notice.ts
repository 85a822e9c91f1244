/** The obligation `notify`: an event of its own, durable and signed before the session that it speaks of starts. */
import type { AuditLog, EventInput } from '#audit'
import type { LiveSession } from './live.ts'

type Notice = Extract<EventInput, { readonly code: 'notify.session' }>

/** What is said of the session beside what it knows itself; `why` is the reason that its grant was asked for with. */
type Facts = Omit<Notice, 'code' | 'message' | 'status' | 'disposition' | 'data'> & {
  readonly why: string
}

/**
 * Gives the notice. Sinks carry the log in its order, so whoever has the start of the session has had the notice.
 * Rejects as `append` does; then nothing may be opened.
 */
export async function giveNotice(
  log: Pick<AuditLog, 'append'>,
  session: LiveSession,
  { why, ...facts }: Facts,
): Promise<void> {
  const { id, subject, device, process, kind, obligations } = session
  await log.append({
    ...facts,
    code: 'notify.session',
    message: `${subject.id} opens a session to ${device}/${process}, of which policy wants notice`,
    status: 'success',
    disposition: 'allowed',
    data: {
      finding: id,
      title: 'A session opens of which policy wants notice',
      detail: { party: subject.party, kind, recorded: obligations.record, why },
    },
  })
  session.noticed = true
}

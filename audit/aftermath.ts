/** The events that opening owes: that it happened, what recovery did, and the ends of sessions that a crash cut off. */
import type { EventInput } from './event.ts'
import type { Opened } from './writer.ts'

/** All of them, in order; `sessions`, with their starts, are those that are to be ended. */
export function owedBy(opened: Opened, sessions: Opened['sessions']): EventInput[] {
  return [
    {
      code: 'log.open',
      message: `Log opened with ${opened.size} events`,
      status: 'success',
      data: {
        size: opened.size,
        ...(opened.signed === null ? {} : { root: opened.signed.root }),
      },
    },
    ...(opened.quarantinedBytes > 0 ? [recoveredEvent(opened)] : []),
    ...sessions.map(([session, start]) => endOf(session, start)),
  ]
}

export function recoveredEvent(opened: Opened): EventInput {
  const where =
    opened.place === null ? '' : ` at byte ${opened.place.offset} of ${opened.place.segment}`
  return {
    code: 'log.recovered',
    message: `Log recovered${where}: ${opened.quarantinedBytes} bytes of an unfinished write set aside`,
    status: 'success',
    data: {
      size: opened.size,
      detail: { quarantined_bytes: opened.quarantinedBytes, where: where.trim() },
    },
  }
}

/** The end a crash kept a session from having, told from its start. */
function endOf(session: string, start: string): EventInput {
  const body = JSON.parse(start) as {
    readonly unmapped?: { readonly sallyport?: Readonly<Record<string, unknown>> }
    readonly actor?: { readonly user?: { readonly uid?: string } }
    readonly metadata?: { readonly sequence?: number }
  }
  const facts = body.unmapped?.sallyport ?? {}
  const text = (name: string): string | undefined =>
    typeof facts[name] === 'string' ? facts[name] : undefined
  const uid = body.actor?.user?.uid
  return {
    code: 'session.end',
    message: 'Session ended: the gateway stopped before it could say so',
    status: 'failure',
    session,
    reason: 'node_crash',
    device: text('device'),
    process: text('process'),
    grant: text('grant'),
    ...(uid === undefined ? {} : { actor: { uid } }),
    data: { how: 'failed', start_idx: body.metadata?.sequence },
  }
}

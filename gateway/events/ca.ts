/** What the CA did, as events. Each is durable before the act it tells of. */
import type { EventInput } from '#audit'
import type { CaEvent } from '#ca'
import { addressOf } from '../events.ts'

/** One event of the CA in the log's own words. */
export function caEvent(event: CaEvent): EventInput {
  switch (event.code) {
    case 'device.enroll':
      return {
        code: 'device.enroll',
        ...attempt(event, 'enrolment'),
        device: event.device ?? 'unknown',
        data: { spki_sha256: event.spkiSha256 ?? undefined, token: event.tokenId ?? undefined },
      }
    case 'cert.renew':
      return {
        code: 'cert.renew',
        ...attempt(event, 'renewal'),
        data: { serial: event.serial ?? 'unknown', spki_sha256: event.spkiSha256 ?? undefined },
      }
    case 'cert.issue':
      return issued(event)
    case 'cert.revoke':
      return revoked(event)
  }
}

function about(event: CaEvent) {
  return { src: addressOf(event.remoteAddress), tenant: event.tenant, time: event.at }
}

/** Somebody asked for a certificate; what came of it. */
function attempt(event: Extract<CaEvent, { outcome: string }>, what: string) {
  const allowed = event.outcome === 'allowed'
  return {
    ...about(event),
    device: event.device ?? undefined,
    status: allowed ? ('success' as const) : ('failure' as const),
    disposition: allowed ? ('allowed' as const) : ('blocked' as const),
    reason: event.reason ?? undefined,
    decisions: decided(event, allowed ? event.reasons : event.denials, 'none'),
    message: `${what} of ${event.device ?? 'an unknown device'} ${event.outcome}${event.approval === null ? '' : `, approved as ${event.approval}`}`,
  }
}

/** The decision behind an event of the CA; `unasked` stands for the revision where it does not know it. */
function decided(
  { decisionId, revision }: { decisionId: string | null; revision: string | null },
  codes: readonly string[],
  unasked: string,
): EventInput['decisions'] {
  return decisionId === null
    ? undefined
    : [{ id: decisionId, revision: revision ?? unasked, codes: [...codes] }]
}

function issued(event: Extract<CaEvent, { code: 'cert.issue' }>): EventInput {
  const again = event.resumed ? ' again' : ''
  return {
    code: 'cert.issue',
    ...about(event),
    device: event.profile === 'device' ? event.subject : undefined,
    status: 'success',
    decisions: decided(event, event.reasons, 'unknown'),
    message: `certificate for ${event.profile} ${event.subject} about to be signed${again}`,
    data: {
      serial: event.serial,
      spki_sha256: event.spkiSha256,
      not_before: Math.floor(event.notBefore / 1000),
      not_after: Math.floor(event.notAfter / 1000),
      profile: event.profile,
      subject: event.subject,
      replaces: event.parent ?? undefined,
      token: event.tokenId ?? undefined,
    },
  }
}

function revoked(event: Extract<CaEvent, { code: 'cert.revoke' }>): EventInput {
  const { target, resumed = false } = event
  const [[what, which] = []] = Object.entries(target)
  const again = resumed ? ', asked for earlier' : ''
  return {
    code: 'cert.revoke',
    ...about(event),
    device: 'device' in target ? target.device : undefined,
    status: 'success',
    disposition: 'revoked',
    reason: event.reason,
    message: `certificates of ${what} ${which} about to be revoked: ${event.reason}${again}`,
    data: { serial: 'serial' in target ? target.serial : 'all' },
  }
}

/** Which sessions a change of a grant bears on. */
import type { Grant } from '../grants/grant.ts'
import type { LiveSession } from './live.ts'

/**
 * The sessions that a grant bears on: those opened under it, or under what it extends or supersedes, and of one to write,
 * those of its holder that it adds to.
 */
export function touchedBy({ statement }: Grant): (session: LiveSession) => boolean {
  const {
    id,
    extends: extended,
    supersedes: old,
    requester,
    devices,
    processes,
    ot_level: level,
  } = statement
  return (session) =>
    [id, extended?.grant, old?.grant].includes(session.grant) ||
    (old !== undefined && session.kind === 'modbus' && session.subject.id === requester) ||
    (level === 2 &&
      session.kind === 'modbus' &&
      session.subject.id === requester &&
      devices.includes(session.device) &&
      processes.includes(session.process))
}

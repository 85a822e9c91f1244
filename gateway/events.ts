/** Who and what an event names, in the log's own words: a person, an address, a session. */
import type { Actor, EventInput } from '#audit'
import { plainAddress, type Source } from './facts.ts'
import type { Subject } from './identity/index.ts'

export function actorOf(subject: Subject): Actor {
  return {
    uid: subject.id,
    name: subject.email,
    org: subject.vendor ?? undefined,
    party: subject.party,
    issuer: subject.issuer,
    authn: { methods: subject.authn.methods, acr: subject.authn.acr, at: subject.authn.at },
  }
}

export function srcOf(source: Source): EventInput['src'] {
  return addressOf(source.ip)
}

/** Where a session reaches, and under which grant: what each event of one names. */
export function sessionOf({
  id,
  device,
  process,
  grant,
}: Readonly<Record<'id' | 'device' | 'process' | 'grant', string>>): Readonly<
  Record<'device' | 'process' | 'grant' | 'session', string>
> {
  return { device, process, grant, session: id }
}

/** An address as it came; null: there was none. */
export const addressOf = (ip: string | null): EventInput['src'] =>
  ip === null ? undefined : { ip: plainAddress(ip) }

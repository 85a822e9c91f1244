/** What the CA asks of policy and of the inventory, in their own words. */
import type { CaDecision, CaFacts, Decide } from '#ca'
import type { Decisions } from './decisions.ts'
import { plainAddress } from './facts.ts'

/** `device.enroll` and `device.renew`; policy can only shorten what the profile says. */
export function decideIssuance(decisions: Decisions): Decide {
  return (point, facts: CaFacts): Promise<CaDecision> => {
    const { device, enroll, renew } = facts
    const ip = plainAddress(facts.remote_address)
    const decision = decisions.ask(point, {
      request_id: facts.request_id,
      subject: { id: device.id, kind: 'device' },
      client: { ip, family: ip.includes(':') ? 6 : 4 },
      tls: { client: { version: facts.tls_version, cipher: null, group: null, pq: null } },
      device: { id: device.id, zone: device.zone, state: device.state },
      enroll,
      renew,
    })
    return Promise.resolve({
      allow: decision.allow,
      denials: decision.denials,
      decision_id: decision.decision_id,
      revision: decision.revision,
      reasons: decision.reasons.map(({ code }) => code),
      obligations: { lifetimeSeconds: decision.obligations.max_duration_s },
    })
  }
}

/** What happened, as events: people, certificate and identity events in the log's own words. */
import type { Actor, EventInput } from '#audit'
import type { CaEvent } from '#ca'
import type { IdentityEvent, Subject } from './identity/index.ts'
import { plainAddress, type Source } from './facts.ts'

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
  return source.ip === null ? undefined : { ip: plainAddress(source.ip) }
}

const at = (ip: string | null): EventInput['src'] =>
  ip === null ? undefined : { ip: plainAddress(ip) }

/** The CA's events. Each is durable before the act it tells of. */
export function caEvent(event: CaEvent): EventInput {
  const src = at(event.remoteAddress)
  const common = { src, tenant: event.tenant, time: event.at }
  switch (event.code) {
    case 'device.enroll':
    case 'cert.renew': {
      const allowed = event.outcome === 'allowed'
      const enrol = event.code === 'device.enroll'
      const what = enrol ? 'enrolment' : 'renewal'
      const outcome = {
        ...common,
        device: event.device ?? undefined,
        status: allowed ? ('success' as const) : ('failure' as const),
        disposition: allowed ? ('allowed' as const) : ('blocked' as const),
        reason: event.reason ?? undefined,
        decisions:
          event.decisionId === null
            ? undefined
            : [{ id: event.decisionId, revision: 'none', codes: [...event.denials] }],
        message: `${what} of ${event.device ?? 'an unknown device'} ${event.outcome}${event.approval === null ? '' : `, approved as ${event.approval}`}`,
      }
      const spki = event.spkiSha256 ?? undefined
      if (event.code === 'device.enroll')
        return {
          code: 'device.enroll',
          ...outcome,
          device: event.device ?? 'unknown',
          data: { spki_sha256: spki, token: event.tokenId ?? undefined },
        }
      return {
        code: 'cert.renew',
        ...outcome,
        data: { serial: event.serial ?? 'unknown', spki_sha256: spki },
      }
    }
    case 'cert.issue':
      return {
        code: 'cert.issue',
        ...common,
        device: event.profile === 'device' ? event.subject : undefined,
        status: 'success',
        message: `certificate for ${event.profile} ${event.subject} about to be signed${event.resumed ? ' again' : ''}`,
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
    case 'cert.revoke': {
      const { target } = event
      const serial = 'serial' in target ? target.serial : 'all'
      return {
        code: 'cert.revoke',
        ...common,
        device: 'device' in target ? target.device : undefined,
        status: 'success',
        disposition: 'revoked',
        reason: event.reason,
        message: `certificates revoked: ${event.reason}`,
        data: { serial },
      }
    }
  }
}

/** Sign-ins and accounts. Changes to accounts are calls of the administration. */
export function identityEvent(event: IdentityEvent): EventInput {
  const common = { src: at(event.source), time: event.at }
  switch (event.code) {
    case 'auth.login': {
      const ok = event.outcome === 'success'
      return {
        code: 'auth.login',
        ...common,
        actor: {
          uid: event.subject ?? 'unknown',
          name: event.email ?? undefined,
          authn: { methods: event.methods },
        },
        status: ok ? 'success' : 'failure',
        disposition: ok ? 'allowed' : 'unauthorized',
        reason: event.reason ?? undefined,
        message: ok ? 'signed in' : 'sign-in refused',
        data: { client: event.client ?? undefined },
      }
    }
    case 'auth.logout':
      return {
        code: 'auth.logout',
        ...common,
        actor: { uid: event.subject },
        status: 'success',
        reason: event.reason,
        message: event.login === null ? 'all logins ended' : 'login ended',
      }
    case 'account.create':
      return {
        code: 'admin.call',
        ...common,
        actor: { uid: event.by },
        status: 'success',
        message: `account created for ${event.party} with roles ${event.roles.join(', ')}`,
        data: { operation: 'account:create', verb: 'create', entity: event.subject },
      }
    case 'account.change':
      return {
        code: 'admin.call',
        ...common,
        actor: { uid: event.by },
        status: 'success',
        message: `account changed: ${Object.keys(event.changes).join(', ')}`,
        data: { operation: 'account:change', verb: 'update', entity: event.subject },
      }
  }
}

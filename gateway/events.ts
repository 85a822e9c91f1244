/** What happened, as events: people, certificate and identity events in the log's own words. */
import type { Actor, EventInput } from '#audit'
import type { CaEvent } from '#ca'
import type { IdentityEvent, Subject } from './identity/index.ts'
import { plainAddress, type Source } from './facts.ts'

type LoginEvent = Extract<IdentityEvent, { readonly code: 'auth.login' }>
type AccountEvent = Extract<IdentityEvent, { readonly code: 'account.create' | 'account.change' }>
type PasskeyEvent = Extract<IdentityEvent, { readonly passkey: string }>
type TotpEvent = Extract<IdentityEvent, { readonly totp: string }>
type InvitationEvent = Extract<IdentityEvent, { readonly invitation: string }>
type ServiceEvent = Extract<IdentityEvent, { readonly service: string }>
type IdpEvent = Extract<IdentityEvent, { readonly idp: string; readonly by: string }>

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

const at = (ip: string | null): EventInput['src'] =>
  ip === null ? undefined : { ip: plainAddress(ip) }

/** The CA's events. Each is durable before the act it tells of. */
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
  return { src: at(event.remoteAddress), tenant: event.tenant, time: event.at }
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

function loginOutcome({ outcome, reason }: LoginEvent): string {
  if (outcome === 'success') return 'signed in'
  return reason === 'second_factor'
    ? 'not signed in yet: a second factor is asked for'
    : 'sign-in refused'
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
          party: event.party ?? undefined,
          issuer: event.idp === undefined ? undefined : `idp:${event.idp}`,
          authn: { methods: event.methods },
        },
        status: ok ? 'success' : 'failure',
        disposition: ok ? 'allowed' : 'unauthorized',
        reason: event.reason ?? undefined,
        message: `${loginOutcome(event)}${event.detail === undefined ? '' : `: ${event.detail}`}`,
        data: { client: event.client ?? undefined },
      }
    }
    case 'auth.logout':
      return {
        code: 'auth.logout',
        ...common,
        actor: { uid: event.subject, party: event.party ?? undefined },
        status: 'success',
        reason: event.reason,
        message: event.login === null ? 'all logins ended' : 'login ended',
        data: { login: event.login ?? undefined },
      }
    case 'account.create':
    case 'account.change':
      return accountEvent(event)
    case 'service.create':
    case 'service.revoke':
      return serviceEvent(event)
    case 'auth.stepup': {
      const ok = event.outcome === 'success'
      return {
        code: 'auth.stepup',
        ...common,
        actor: {
          uid: event.subject,
          name: event.email,
          party: event.party ?? undefined,
          authn: { methods: event.methods },
        },
        status: ok ? 'success' : 'failure',
        disposition: ok ? 'allowed' : 'unauthorized',
        reason: event.reason ?? undefined,
        message: `${event.means === 'code' ? 'code of an authenticator app' : 'passkey'} ${ok ? 'accepted' : 'refused'} (${event.purpose})`,
        data: { client: event.client ?? undefined },
      }
    }
    case 'passkey.add':
    case 'passkey.remove':
      return passkeyEvent(event)
    case 'totp.add':
    case 'totp.remove':
      return totpEvent(event)
    case 'invitation.create':
    case 'invitation.revoke':
      return invitationEvent(event)
    case 'idp.create':
    case 'idp.change':
    case 'idp.remove':
      return idpEvent(event)
  }
}

/** What was told before, and whether it came to be. */
function came(failed: string | undefined, message: string) {
  return failed === undefined
    ? ({ status: 'success', message } as const)
    : ({ status: 'failure', reason: failed, message: `without effect: ${message}` } as const)
}

function passkeyEvent(event: PasskeyEvent): EventInput {
  const { code, source, at: time, by, byParty, subject, passkey, name } = event
  const added = code === 'passkey.add'
  return {
    code: 'admin.call',
    src: at(source),
    time,
    actor: { uid: by, party: byParty },
    ...came(event.failed, `passkey ${added ? 'added' : 'removed'}: ${name}`),
    data: {
      operation: added ? 'passkey:add' : 'passkey:remove',
      verb: added ? 'create' : 'delete',
      entity: subject,
      changes: { passkey, name },
    },
  }
}

function totpEvent(event: TotpEvent): EventInput {
  const { code, source, at: time, by, byParty, subject, totp } = event
  const added = code === 'totp.add'
  return {
    code: 'admin.call',
    src: at(source),
    time,
    actor: { uid: by, party: byParty },
    ...came(event.failed, `authenticator app ${added ? 'added' : 'removed'}: ${totp}`),
    data: {
      operation: added ? 'totp:add' : 'totp:remove',
      verb: added ? 'create' : 'delete',
      entity: subject,
      changes: { totp },
    },
  }
}

function invitationEvent(event: InvitationEvent): EventInput {
  const { source, at: time, by, byParty, invitation, email } = event
  const made = event.code === 'invitation.create'
  const renews = made && event.renews
  const more = made
    ? { vendor: event.vendor, groups: event.groups, expires_at: Math.floor(event.expiresAt / 1000) }
    : {}
  const acts = renews ? 'account:renew' : 'account:invite'
  return {
    code: 'admin.call',
    src: at(source),
    time,
    actor: { uid: by, party: byParty },
    ...came(
      event.failed,
      `invitation ${renews ? 'to renew an account ' : ''}${made ? 'made' : 'withdrawn'}: ${invitation}`,
    ),
    data: {
      operation: made ? acts : 'account:uninvite',
      verb: made ? 'create' : 'delete',
      entity: `invitation:${invitation}`,
      changes: { email, ...more },
    },
  }
}

function serviceEvent(event: ServiceEvent): EventInput {
  const { code, source, at: time, by, byParty, service, changes, failed } = event
  const made = code === 'service.create'
  return {
    code: 'admin.call',
    src: at(source),
    time,
    actor: { uid: by, party: byParty },
    ...came(failed, `service ${made ? 'entered' : 'revoked'}: ${String(changes['name'])}`),
    data: {
      operation: made ? 'service:create' : 'service:revoke',
      verb: made ? 'create' : 'delete',
      entity: service,
      changes,
    },
  }
}

const IDP_VERBS = {
  'idp.create': { verb: 'create', operation: 'idp:create', message: 'added' },
  'idp.change': { verb: 'update', operation: 'idp:change', message: 'changed' },
  'idp.remove': { verb: 'delete', operation: 'idp:remove', message: 'removed' },
} as const

function idpEvent(event: IdpEvent): EventInput {
  const { code, source, at: time, by, byParty, idp, changes, failed } = event
  const { verb, operation, message } = IDP_VERBS[code]
  return {
    code: 'admin.call',
    src: at(source),
    time,
    actor: { uid: by, party: byParty },
    ...came(failed, `provider of a company ${message}: ${idp}`),
    data: { operation, verb, entity: `idp:${idp}`, changes },
  }
}

function accountEvent(event: AccountEvent): EventInput {
  const common = {
    src: at(event.source),
    time: event.at,
    actor: { uid: event.by, party: event.byParty },
  }
  switch (event.code) {
    case 'account.create': {
      const { email, party, vendor, roles, groups } = event
      return {
        code: 'admin.call',
        ...common,
        ...came(event.failed, `account created for ${party} with roles ${roles.join(', ')}`),
        data: {
          operation: 'account:create',
          verb: 'create',
          entity: event.subject,
          changes: { email, party, vendor, roles, groups },
        },
      }
    }
    case 'account.change':
      return {
        code: 'admin.call',
        ...common,
        ...came(event.failed, `account changed: ${Object.keys(event.changes).join(', ')}`),
        data: {
          operation: 'account:change',
          verb: 'update',
          entity: event.subject,
          changes: event.changes,
        },
      }
  }
}

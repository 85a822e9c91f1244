/** Sign-ins and accounts as events. Changes to accounts are calls of the administration. */
import type { EventInput } from '#audit'
import { addressOf } from '../events.ts'
import type { IdentityEvent } from '../identity/index.ts'

type LoginEvent = Extract<IdentityEvent, { readonly code: 'auth.login' }>
type LogoutEvent = Extract<IdentityEvent, { readonly code: 'auth.logout' }>
type StepUpEvent = Extract<IdentityEvent, { readonly code: 'auth.stepup' }>
type AccountEvent = Extract<IdentityEvent, { readonly code: 'account.create' | 'account.change' }>
type PasskeyEvent = Extract<IdentityEvent, { readonly passkey: string }>
type TotpEvent = Extract<IdentityEvent, { readonly totp: string }>
type InvitationEvent = Extract<IdentityEvent, { readonly invitation: string }>
type ServiceEvent = Extract<IdentityEvent, { readonly service: string }>
type IdpEvent = Extract<IdentityEvent, { readonly idp: string; readonly by: string }>
type Change = AccountEvent | PasskeyEvent | TotpEvent | InvitationEvent | ServiceEvent | IdpEvent

/** One event of who is who in the log's own words. */
export function identityEvent(event: IdentityEvent): EventInput {
  switch (event.code) {
    case 'auth.login':
      return login(event)
    case 'auth.logout':
      return logout(event)
    case 'auth.stepup':
      return stepUp(event)
    case 'account.create':
    case 'account.change':
      return account(event)
    case 'service.create':
    case 'service.revoke':
      return service(event)
    case 'passkey.add':
    case 'passkey.remove':
      return passkey(event)
    case 'totp.add':
    case 'totp.remove':
      return totp(event)
    case 'invitation.create':
    case 'invitation.revoke':
      return invitation(event)
    case 'idp.create':
    case 'idp.change':
    case 'idp.remove':
      return idp(event)
  }
}

const when = ({ source, at }: IdentityEvent) => ({ src: addressOf(source), time: at })

function outcomeOf({ outcome, reason }: LoginEvent | StepUpEvent) {
  const ok = outcome === 'success'
  return {
    status: ok ? ('success' as const) : ('failure' as const),
    disposition: ok ? ('allowed' as const) : ('unauthorized' as const),
    reason: reason ?? undefined,
  }
}

function login(event: LoginEvent): EventInput {
  return {
    code: 'auth.login',
    ...when(event),
    actor: {
      uid: event.subject ?? 'unknown',
      name: event.email ?? undefined,
      party: event.party ?? undefined,
      issuer: event.idp === undefined ? undefined : `idp:${event.idp}`,
      authn: { methods: event.methods },
    },
    ...outcomeOf(event),
    message: `${loginOutcome(event)}${event.detail === undefined ? '' : `: ${event.detail}`}`,
    data: { client: event.client ?? undefined },
  }
}

function loginOutcome({ outcome, reason }: LoginEvent): string {
  if (outcome === 'success') return 'signed in'
  return reason === 'second_factor'
    ? 'not signed in yet: a second factor is asked for'
    : 'sign-in refused'
}

function logout(event: LogoutEvent): EventInput {
  return {
    code: 'auth.logout',
    ...when(event),
    actor: { uid: event.subject, party: event.party ?? undefined },
    status: 'success',
    reason: event.reason,
    message: event.login === null ? 'all logins ended' : 'login ended',
    data: { login: event.login ?? undefined },
  }
}

function stepUp(event: StepUpEvent): EventInput {
  const means = event.means === 'code' ? 'code of an authenticator app' : 'passkey'
  const came = event.outcome === 'success' ? 'accepted' : 'refused'
  return {
    code: 'auth.stepup',
    ...when(event),
    actor: {
      uid: event.subject,
      name: event.email,
      party: event.party ?? undefined,
      authn: { methods: event.methods },
    },
    ...outcomeOf(event),
    message: `${means} ${came} (${event.purpose})`,
    data: { client: event.client ?? undefined },
  }
}

/** What somebody did to who is who; `message` is what was told before, whether or not it came to be. */
function change(
  event: Change,
  message: string,
  data: Extract<EventInput, { readonly code: 'admin.call' }>['data'],
): EventInput {
  const { by, byParty, failed, effect } = event
  const what = { code: 'admin.call', ...when(event), actor: { uid: by, party: byParty } } as const
  if (failed === undefined) return { ...what, status: 'success', message, data }
  // The programs that read evidence know the act again by what stands behind these words.
  const came = effect === 'unknown' ? 'not known whether this took effect' : 'without effect'
  const told = { message: `${came}: ${message}`, data: { ...data, effect } }
  return { ...what, status: 'failure', reason: failed, ...told }
}

function account(event: AccountEvent): EventInput {
  if (event.code === 'account.change')
    return change(event, `account changed: ${Object.keys(event.changes).join(', ')}`, {
      operation: 'account:change',
      verb: 'update',
      entity: event.subject,
      changes: event.changes,
    })
  const { email, party, vendor, roles, groups } = event
  return change(event, `account created for ${party} with roles ${roles.join(', ')}`, {
    operation: 'account:create',
    verb: 'create',
    entity: event.subject,
    changes: { email, party, vendor, roles, groups },
  })
}

function passkey(event: PasskeyEvent): EventInput {
  const { code, subject, passkey: id, name } = event
  const added = code === 'passkey.add'
  return change(event, `passkey ${added ? 'added' : 'removed'}: ${name}`, {
    operation: added ? 'passkey:add' : 'passkey:remove',
    verb: added ? 'create' : 'delete',
    entity: subject,
    changes: { passkey: id, name },
  })
}

function totp(event: TotpEvent): EventInput {
  const { code, subject, totp: name } = event
  const added = code === 'totp.add'
  return change(event, `authenticator app ${added ? 'added' : 'removed'}: ${name}`, {
    operation: added ? 'totp:add' : 'totp:remove',
    verb: added ? 'create' : 'delete',
    entity: subject,
    changes: { totp: name },
  })
}

function invitation(event: InvitationEvent): EventInput {
  const { invitation: id, email } = event
  const made = event.code === 'invitation.create'
  const renews = made && event.renews
  const more = made
    ? { vendor: event.vendor, groups: event.groups, expires_at: Math.floor(event.expiresAt / 1000) }
    : {}
  const acts = renews ? 'account:renew' : 'account:invite'
  const what = `invitation ${renews ? 'to renew an account ' : ''}${made ? 'made' : 'withdrawn'}`
  return change(event, `${what}: ${id}`, {
    operation: made ? acts : 'account:uninvite',
    verb: made ? 'create' : 'delete',
    entity: `invitation:${id}`,
    changes: { email, ...more },
  })
}

function service(event: ServiceEvent): EventInput {
  const { code, service: id, changes } = event
  const made = code === 'service.create'
  return change(event, `service ${made ? 'entered' : 'revoked'}: ${String(changes['name'])}`, {
    operation: made ? 'service:create' : 'service:revoke',
    verb: made ? 'create' : 'delete',
    entity: id,
    changes,
  })
}

const IDP_VERBS = {
  'idp.create': { verb: 'create', operation: 'idp:create', message: 'added' },
  'idp.change': { verb: 'update', operation: 'idp:change', message: 'changed' },
  'idp.remove': { verb: 'delete', operation: 'idp:remove', message: 'removed' },
} as const

function idp(event: IdpEvent): EventInput {
  const { verb, operation, message } = IDP_VERBS[event.code]
  return change(event, `provider of a company ${message}: ${event.idp}`, {
    operation,
    verb,
    entity: `idp:${event.idp}`,
    changes: event.changes,
  })
}

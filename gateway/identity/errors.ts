/** Every way in which our own calls on accounts say no. Answers to a login attempt are values, not these. */

export type IdentityCode =
  | 'account.email'
  | 'account.name'
  | 'account.vendor'
  | 'account.roles'
  | 'account.groups'
  | 'account.exists'
  | 'account.unknown'
  | 'account.disabled'
  | 'account.last_admin'
  | 'account.outside'
  | 'account.self'
  | 'account.moved'
  | 'password.length'
  | 'password.weak'
  | 'bootstrap.invalid'
  | 'bootstrap.spent'
  | 'passkey.address'
  | 'passkey.none'
  | 'passkey.stale'
  | 'passkey.exists'
  | 'passkey.full'
  | 'passkey.moved'
  | 'passkey.unknown'
  | 'passkey.refused'
  | 'passkey.last'
  | 'totp.none'
  | 'totp.stale'
  | 'totp.password'
  | 'totp.code'
  | 'totp.limit'
  | 'totp.moved'
  | 'invitation.unknown'
  | 'invitation.used'
  | 'invitation.revoked'
  | 'invitation.expired'
  | 'invitation.limit'
  | 'invitation.full'
  | 'invitation.expiry'
  | 'invitation.company'
  | 'ceremony.unknown'
  | 'ceremony.limit'
  | 'idp.entry'
  | 'idp.exists'
  | 'idp.taken'
  | 'idp.full'
  | 'idp.unknown'
  | 'idp.unreachable'
  | 'idp.discovery'
  | 'service.key'
  | 'service.scope'
  | 'service.expiry'
  | 'service.exists'
  | 'service.full'
  | 'service.unknown'
  | 'service.revoked'
  | 'keys.malformed'
  | 'keys.permissions'
  | 'busy'
  | 'log.unavailable'
  | 'log.incomplete'

interface Row {
  readonly status: 400 | 403 | 404 | 409 | 410 | 429 | 500 | 503
  readonly detail: string
  readonly nextStep: string
}

/** What a person is told for each code; the HTTP status is the one a route answers with. */
export const identityRows = {
  'account.email': {
    status: 400,
    detail: 'The address does not look like an e-mail address.',
    nextStep: 'Give an address of the form name@company, at most 320 characters.',
  },
  'account.name': {
    status: 400,
    detail: 'The name is empty, longer than 200 characters, or holds control characters.',
    nextStep: 'Give the name as it should be shown to colleagues.',
  },
  'account.vendor': {
    status: 400,
    detail: 'A vendor account names its company, and a staff account names none.',
    nextStep: 'Set `vendor` for party vendor; leave it out for party staff.',
  },
  'account.roles': {
    status: 400,
    detail: 'A role is unknown, or a vendor account was to get more than the role vendor.',
    nextStep: 'Use admin, engineer, operator, auditor or vendor; vendor accounts take vendor only.',
  },
  'account.groups': {
    status: 400,
    detail: 'There are more than 64 groups, or one is empty or longer than 200 characters.',
    nextStep: 'Shorten the list of groups.',
  },
  'account.exists': {
    status: 409,
    detail: 'An account with this address exists already.',
    nextStep: 'Change that account, or use another address.',
  },
  'account.unknown': {
    status: 404,
    detail: 'There is no such account.',
    nextStep: 'List the accounts and check the id.',
  },
  'account.disabled': {
    status: 403,
    detail: 'The account is disabled or gone.',
    nextStep: 'Ask an administrator.',
  },
  'account.last_admin': {
    status: 409,
    detail:
      'This is the last enabled administrator with an account of the gateway’s own; one from outside may be unable to sign in on the day it matters.',
    nextStep: 'Make another account an administrator first.',
  },
  'account.outside': {
    status: 409,
    detail:
      'This account comes from a company’s own provider, which says what it is called and may do.',
    nextStep: 'Have it changed there; here it can be disabled, or its provider removed.',
  },
  'account.self': {
    status: 409,
    detail: 'An account cannot be linked to itself.',
    nextStep: 'Name the other account of the same person.',
  },
  'account.moved': {
    status: 409,
    detail: 'Somebody else changed this account at the same moment, so nothing was done.',
    nextStep: 'Look at the account as it is now, and try again.',
  },
  'password.length': {
    status: 400,
    detail: 'The password is shorter than 12 or longer than 256 characters.',
    nextStep: 'Choose a passphrase of 12 to 256 characters.',
  },
  'password.weak': {
    status: 400,
    detail: 'The password is a common one, a repetition, or made of the account itself.',
    nextStep: 'Choose several words that have nothing to do with the account.',
  },
  'bootstrap.invalid': {
    status: 404,
    detail: 'This is not the bootstrap token of this gateway.',
    nextStep: 'Read the file bootstrap-token in the data directory of the gateway.',
  },
  'bootstrap.spent': {
    status: 410,
    detail: 'The bootstrap token was used, or an account exists already.',
    nextStep: 'Sign in as an administrator and create the account from there.',
  },
  'passkey.address': {
    status: 409,
    detail: 'Passkeys belong to a host name, and this gateway is known by an IP address.',
    nextStep: 'Set `public_host` to a name that everybody resolves, and use that address.',
  },
  'passkey.none': {
    status: 409,
    detail: 'This account has no passkey.',
    nextStep: 'Add one: `sallyport passkey add`.',
  },
  'passkey.stale': {
    status: 403,
    detail:
      'A passkey is added within 15 minutes of signing in, and by who has one already, with that one.',
    nextStep: 'Run `sallyport step-up`, or without a passkey `sallyport login --again`.',
  },
  'passkey.exists': {
    status: 409,
    detail: 'This passkey is registered already.',
    nextStep: 'Use another authenticator.',
  },
  'passkey.full': {
    status: 409,
    detail: 'The account has 10 passkeys, and there cannot be more.',
    nextStep: 'Remove one that is not used any more: `sallyport passkey list`.',
  },
  'passkey.moved': {
    status: 409,
    detail:
      'Meanwhile a passkey or an authenticator app was added to this account, or one of its own was removed.',
    nextStep:
      'Look: `sallyport passkey list` and `sallyport totp list`. If that was you, run `sallyport login --again` and add this one; if not, tell an administrator at once.',
  },
  'passkey.unknown': {
    status: 404,
    detail: 'The account has no such passkey.',
    nextStep: 'List them: `sallyport passkey list`.',
  },
  'passkey.refused': {
    status: 403,
    detail: 'The answer of the passkey was not accepted.',
    nextStep: 'Start again; if it stays, give the code to an administrator.',
  },
  'passkey.last': {
    status: 409,
    detail:
      'This is the only passkey of an account without a password: nobody could sign in to it.',
    nextStep: 'Add another passkey first: `sallyport passkey add NAME`.',
  },
  'totp.none': {
    status: 404,
    detail: 'This account has no authenticator app.',
    nextStep: 'Add one: `sallyport totp add NAME`.',
  },
  'totp.stale': {
    status: 403,
    detail:
      'An authenticator app is added within 15 minutes of signing in; by who has a passkey with that, and by who has an app already with a code of it.',
    nextStep:
      'Run `sallyport login --again`, or with a passkey `sallyport step-up`, and then this again.',
  },
  'totp.password': {
    status: 409,
    detail:
      'A code is asked for after the password, and this account has none: it would never be asked for.',
    nextStep: 'Add a passkey instead: `sallyport passkey add NAME`.',
  },
  'totp.code': {
    status: 403,
    detail: 'This is not the code that the app shows now.',
    nextStep:
      'Type the code that it shows now; if it stays wrong, set the clock of your phone by the network.',
  },
  'totp.limit': {
    status: 429,
    detail: 'There were too many wrong codes.',
    nextStep: 'Try again in ten minutes: `sallyport totp add NAME`.',
  },
  'totp.moved': {
    status: 409,
    detail:
      'Meanwhile a passkey or another authenticator app was added to this account, or one of its own was removed.',
    nextStep:
      'Look: `sallyport passkey list` and `sallyport totp list`. If that was not you, tell an administrator at once.',
  },
  'invitation.unknown': {
    status: 404,
    detail: 'This opens no invitation.',
    nextStep: 'Open the whole link, with what stands behind the #, or ask for a new one.',
  },
  'invitation.used': {
    status: 410,
    detail: 'This invitation was used already.',
    nextStep: 'If that was you, sign in. If it was not, tell whoever invited you at once.',
  },
  'invitation.revoked': {
    status: 410,
    detail: 'This invitation was withdrawn.',
    nextStep: 'Ask whoever invited you.',
  },
  'invitation.expired': {
    status: 410,
    detail: 'This invitation has run out.',
    nextStep: 'Ask whoever invited you for a new one.',
  },
  'invitation.limit': {
    status: 429,
    detail: 'From your network, too many links that open nothing were tried.',
    nextStep: 'Try again in ten minutes.',
  },
  'invitation.full': {
    status: 409,
    detail: '1,000 invitations stand, and there cannot be more.',
    nextStep: 'Withdraw those that nobody will use: `sallyport account invitations`.',
  },
  'service.key': {
    status: 400,
    detail: 'The key of a service is a public key on P-256.',
    nextStep: 'Let the command make it: `sallyport service add NAME --out FILE`.',
  },
  'service.scope': {
    status: 400,
    detail: 'There is no such scope for a service.',
    nextStep: 'A scope is an area of the API and :read or :write, as in devices:read.',
  },
  'service.expiry': {
    status: 400,
    detail: 'A service stands for an hour at least and 366 days at most.',
    nextStep: 'Choose a time between the two.',
  },
  'service.exists': {
    status: 409,
    detail: 'A service that stands has this name or this key.',
    nextStep: 'Revoke that one, or choose another name: `sallyport service list`.',
  },
  'service.full': {
    status: 409,
    detail: '1,000 services stand, and there cannot be more.',
    nextStep: 'Revoke those that nobody needs: `sallyport service list`.',
  },
  'service.unknown': {
    status: 404,
    detail: 'There is no such service.',
    nextStep: 'See who there is: `sallyport service list`.',
  },
  'service.revoked': {
    status: 409,
    detail: 'The service was revoked before.',
    nextStep: 'Nothing is to be done; it gets no token any more.',
  },
  'invitation.expiry': {
    status: 400,
    detail: 'An invitation stands for ten minutes at least and 30 days at most.',
    nextStep: 'Choose a time between the two.',
  },
  'invitation.company': {
    status: 409,
    detail:
      'People with such an address are signed in by their company, whose provider is entered here.',
    nextStep: 'Have them sign in with it, or invite them under an address of another domain.',
  },
  'ceremony.unknown': {
    status: 404,
    detail: 'This link has been used, is older than five minutes, or its sign-in has ended.',
    nextStep: 'Go back to where you got it, and ask for a new one.',
  },
  'ceremony.limit': {
    status: 429,
    detail: 'This account asked for a passkey or a code too often.',
    nextStep: 'Try again in ten minutes.',
  },
  'idp.entry': {
    status: 400,
    detail:
      'The provider cannot be entered like this: an https issuer, a client id, one to 64 domains, a root that is one, known roles and methods, and no roles for a vendor are wanted.',
    nextStep:
      'Compare the entry with docs/identity.md, section "Companies with a provider of their own".',
  },
  'idp.exists': {
    status: 409,
    detail: 'There is a provider of this id.',
    nextStep: 'Choose another id, or remove that one first: `sallyport idp list`.',
  },
  'idp.taken': {
    status: 409,
    detail: 'Another provider here has one of the domains, or is this client of this issuer.',
    nextStep: 'One address belongs to one company: `sallyport idp list` shows whose.',
  },
  'idp.full': {
    status: 409,
    detail: 'There are 100 providers, and there cannot be more.',
    nextStep: 'Remove one that is not used any more.',
  },
  'idp.unknown': {
    status: 404,
    detail: 'There is no provider of this id.',
    nextStep: 'List them: `sallyport idp list`.',
  },
  'idp.unreachable': {
    status: 503,
    detail:
      'The provider does not answer at its discovery address, or its certificate is not trusted.',
    nextStep:
      'Check the issuer, the way out of the gateway, and `--ca` for a root of the company’s own.',
  },
  'idp.discovery': {
    status: 400,
    detail:
      'What answers is not this issuer, or lacks an https address for keys, sign-in or tokens.',
    nextStep: 'Enter the issuer exactly as the provider’s discovery document names it.',
  },
  'keys.malformed': {
    status: 500,
    detail: 'The key file of the identity provider cannot be read.',
    nextStep: 'Restore identity/keys.json from the backup; removing it ends every login.',
  },
  'keys.permissions': {
    status: 500,
    detail: 'The key file of the identity provider is readable by others.',
    nextStep:
      'Run chmod 600 on it; if others may have read it, remove it so that new keys are made.',
  },
  busy: {
    status: 503,
    detail: 'Too many passwords are being checked at this moment.',
    nextStep: 'Try again in a few seconds.',
  },
  'log.unavailable': {
    status: 503,
    detail: 'The event could not be written to the log, so nothing was done.',
    nextStep: 'Look at the state of the audit log: `sallyport doctor`.',
  },
  'log.incomplete': {
    status: 500,
    detail: 'The logins were ended, but the log could not record it.',
    nextStep:
      'Note the time and the account; look at the state of the audit log: `sallyport doctor`.',
  },
} as const satisfies Record<IdentityCode, Row>

export class IdentityError extends Error {
  override readonly name = 'IdentityError'
  readonly code: IdentityCode
  readonly status: Row['status']
  readonly nextStep: string
  /** Which check said no, where there are several. */
  readonly fault: string | undefined
  constructor(code: IdentityCode, options?: ErrorOptions & { readonly fault?: string }) {
    super(identityRows[code].detail, options)
    this.fault = options?.fault
    this.code = code
    this.status = identityRows[code].status
    this.nextStep = identityRows[code].nextStep
  }
}

/** The whole room behind one door: provider, accounts, verifier, and the changes they cause. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { openAccounts, type Accounts } from './accounts.ts'
import { openBootstrap, removeBootstrapFile } from './bootstrap.ts'
import type { IdentityChange, IdentityLog } from './events.ts'
import { openIdpDoor } from './idp/door.ts'
import { openIdps, type Idps } from './idp/idps.ts'
import { openRelyingParty } from './idp/relying.ts'
import { openInvitations, type Invitations } from './invitations/invitations.ts'
import { openIdentityKeys } from './keys.ts'
import { createPasswords } from './password.ts'
import { ACR_PASSKEY, METHOD } from './passkeys/credential.ts'
import { openPasskeys, type Passkeys } from './passkeys/passkeys.ts'
import { relyingPartyOf } from './passkeys/verify.ts'
import { openServices, type Services } from './services/services.ts'
import type { ServiceStore } from './services/store.ts'
import { openTotps, type Totps } from './totp/totp.ts'
import type { TotpStore } from './totp/store.ts'
import { CLI_CLIENT_ID, createProvider } from './provider.ts'
import type { Lifetimes, ProviderClient } from './setting.ts'
import type { IdentityStore, IdpStore, InvitationStore, OidcStore, PasskeyStore } from './store.ts'
import type { AuthRefusal, AuthRequest, Login, Subject } from './subject.ts'
import type { SharedProofs } from './replay.ts'
import { createVerifier } from './verify.ts'

export interface IdentityOptions {
  /** `https://<public host>:<port>`; the issuer is this and `/oidc`, the audience this and `/api`. */
  readonly origin: string
  /** The data directory: `identity/keys.json` and `bootstrap-token` are kept in it, both 0600. */
  readonly directory: string
  readonly store: IdentityStore
  readonly oidcStore: OidcStore
  readonly idpStore: IdpStore
  readonly passkeyStore: PasskeyStore
  readonly totpStore: TotpStore
  readonly invitationStore: InvitationStore
  readonly serviceStore: ServiceStore
  /** Where other gateways accept the same tokens. */
  readonly proofs?: SharedProofs | undefined
  /** Awaited before every act it records; a rejection stops the act. */
  readonly log: IdentityLog
  /** Epoch milliseconds; default the system clock (the embedded provider always reads that one). */
  readonly now?: () => number
  /** Where a request came from; default the peer address of its socket. */
  readonly source?: (request: IncomingMessage) => string
  /** Clients beside `sallyport-cli`, e.g. the console. */
  readonly clients?: readonly ProviderClient[]
  readonly lifetimes?: Partial<Lifetimes>
  /** Told of every failure of our own, with the id that the page showed. */
  readonly report?: (error: unknown, id: string) => void
}

export interface Identity extends AsyncDisposable {
  readonly issuer: string
  readonly audience: string
  readonly clientId: string
  /** Answers every request whose path is `/oidc` or begins with `/oidc/`. */
  handle(request: IncomingMessage, response: ServerResponse): void
  /** Who is asking. Never throws; `now` is epoch milliseconds. */
  authenticate(request: AuthRequest, now: number): Promise<Subject | AuthRefusal>
  /** The login an authenticated subject came by: keep it with the session, give it to `current`. */
  loginOf(subject: Subject): Login
  /** The same person as of now, or why the login no longer stands. Never throws. */
  current(login: Login, now: number): Promise<Subject | AuthRefusal>
  /**
   * Notes that a passkey was shown in this login at `now`: from then on its subject carries the method and the time.
   * False where the login has ended.
   */
  stepUp(login: Login, now: number): Promise<boolean>
  readonly accounts: Accounts
  readonly passkeys: Passkeys
  /** Authenticator apps. */
  readonly totps: Totps
  /** Guests, and how they come in. */
  readonly invitations: Invitations
  /** Companies' own providers. */
  readonly idps: Idps
  /** Programs that call in their own name. */
  readonly services: Services
  /** What a service may use of what policy allows it; null: a person. */
  scopesOf(subject: Subject): readonly string[] | null
  /** The file that holds the bootstrap token, while no account exists; null afterwards. */
  readonly bootstrapFile: string | null
  /** Calls `listener` after each change; gives the function that ends it. A throw is reported, not passed on. */
  onChange(listener: (change: IdentityChange) => void): () => void
}

const SWEEP_EVERY_MS = 60_000
/** How long an expired row is kept: until then its owner is told "expired" and not "unknown". */
const KEEP_EXPIRED_MS = 3_600_000

/**
 * Opens the room: keys and bootstrap token are made at first start. Leaving the block stops the sweeping;
 * the stores belong to the caller. Errors: keys.malformed, keys.permissions.
 */
export async function openIdentity(options: IdentityOptions): Promise<Identity> {
  const now = options.now ?? Date.now
  const source = options.source ?? peerAddress
  const report = options.report ?? (() => undefined)
  const { store, oidcStore, log } = options
  const { origin } = new URL(options.origin)
  const issuer = `${origin}/oidc`
  const audience = `${origin}/api`
  const keys = await openIdentityKeys(join(options.directory, 'identity', 'keys.json'))
  const { changed, onChange } = createChanges(report)
  const passwords = createPasswords()
  const accounts = openAccounts({ issuer, store, oidcStore, log, changed, now, passwords })
  const relying = openRelyingParty({ keys, now })
  const parts = { issuer, store, oidcStore, accounts, relying, log, changed, now }
  const door = openIdpDoor({ ...parts, idpStore: options.idpStore })
  const shared = { issuer, audience, keys, store, oidcStore, idps: door }
  const { passkeyStore, serviceStore, totpStore } = options
  const relyingParty = relyingPartyOf(origin)
  const held = { issuer, store, oidcStore, accounts, log, changed, now }
  const passkeys = openPasskeys({ ...held, relyingParty, passkeyStore, totpStore })
  const site = relyingParty.id
  const totps = openTotps({ ...held, site, keys, totpStore, passkeyStore })
  const invitations = openInvitations({
    ...held,
    relyingParty,
    passwords,
    idps: door,
    invitationStore: options.invitationStore,
    passkeyStore,
  })
  const services = openServices({ issuer, serviceStore, log, changed, now })
  const provider = createProvider({
    ...shared,
    serviceStore,
    accounts,
    passkeys,
    totps,
    invitations,
    log,
    changed,
    now,
    source,
    report,
    clients: options.clients ?? [],
    lifetimes: options.lifetimes ?? {},
  })
  const verifier = createVerifier({
    ...shared,
    serviceStore,
    proofs: options.proofs,
    origin,
    since: now(),
  })
  const bootstrapFile = await openBootstrap(store, options.directory)
  const sweeping = setInterval(() => {
    oidcStore.sweep(now() - KEEP_EXPIRED_MS).catch((error: unknown) => report(error, 'sweep'))
  }, SWEEP_EVERY_MS)
  sweeping.unref()
  return {
    issuer,
    audience,
    clientId: CLI_CLIENT_ID,
    bootstrapFile,
    handle: (request, response) => provider.handle(request, response),
    authenticate: async (request, at) => verifier.authenticate(request, at),
    loginOf: (subject) => verifier.loginOf(subject),
    current: async (login, at) => verifier.current(login, at),
    async stepUp({ login, subject }, at) {
      const authn = { methods: [METHOD], acr: ACR_PASSKEY, at: Math.floor(at / 1000) }
      const stands = await oidcStore.stepUp(login, authn)
      if (stands) changed({ kind: 'changed', subject, login })
      return stands
    },
    scopesOf: (subject) => verifier.scopesOf(subject),
    services,
    passkeys,
    totps,
    invitations,
    accounts: withoutFileAfterwards(accounts, options.directory),
    idps: openIdps({ issuer, store: options.idpStore, accounts, relying, keys, log, now }),
    onChange,
    async [Symbol.asyncDispose]() {
      clearInterval(sweeping)
      await relying[Symbol.asyncDispose]()
    },
  }
}

/** Once redeemed, the token's file is only something to find. */
function withoutFileAfterwards(accounts: Accounts, directory: string): Accounts {
  return {
    ...accounts,
    async redeemBootstrap(token, account, source) {
      const made = await accounts.redeemBootstrap(token, account, source)
      await removeBootstrapFile(directory)
      return made
    },
  }
}

interface Changes {
  readonly changed: (change: IdentityChange) => void
  readonly onChange: Identity['onChange']
}

/** Passes each change to whoever asked for it; one that throws does not keep it from the others. */
function createChanges(report: (error: unknown, id: string) => void): Changes {
  const listeners = new Set<(change: IdentityChange) => void>()
  return {
    changed(change) {
      for (const listener of listeners) {
        try {
          listener(change)
        } catch (error) {
          report(error, 'onChange')
        }
      }
    },
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

/** The peer's address in one form: IPv4 without the IPv6 wrapping. */
function peerAddress(request: IncomingMessage): string {
  return request.socket.remoteAddress?.replace(/^::ffff:(?=\d+\.)/i, '') ?? 'unknown'
}

/**
 * Who is asking: an access token bound to a key (RFC 9449, RFC 9068), checked against the provider's own
 * keys, then against the store: the login must stand and the account be enabled now, and roles and groups
 * are read now. Nothing here throws; whatever goes wrong is a refusal.
 */
import type { IdentityKeys } from './keys.ts'
import { checkProof } from './proof.ts'
import { refuse } from './refusal.ts'
import { createReplayMemory, type ReplayMemory, type SharedProofs } from './replay.ts'
import type { IdpDoor } from './setting.ts'
import { isService } from './services/client.ts'
import { stands, type ServiceRow, type ServiceStore } from './services/store.ts'
import type { AccountRow, IdentityStore, OidcStore, StandingLogin } from './store.ts'
import type {
  Authentication,
  AuthCode,
  AuthRefusal,
  AuthRequest,
  Login,
  Subject,
} from './subject.ts'
import { checkToken, publicKeysOf, type PublicKeys } from './token.ts'

export interface VerifierOptions {
  /** `https://<host>:<port>`: what a proof's `htu` must begin with. */
  readonly origin: string
  readonly issuer: string
  readonly audience: string
  readonly keys: IdentityKeys
  readonly store: Pick<IdentityStore, 'findAccount'>
  readonly oidcStore: Pick<OidcStore, 'findLogin'>
  readonly idps: Pick<IdpDoor, 'stands'>
  readonly serviceStore: Pick<ServiceStore, 'findService'>
  /** When this process began to remember proofs; older ones are refused. Epoch milliseconds. */
  readonly since: number
  readonly replay?: ReplayMemory
  /** Where other gateways accept the same tokens. */
  readonly proofs?: SharedProofs | undefined
}

export interface Verifier {
  authenticate(request: AuthRequest, now: number): Promise<Subject | AuthRefusal>
  loginOf(subject: Subject): Login
  current(login: Login, now: number): Promise<Subject | AuthRefusal>
  /** What a service may use of what policy allows it; null: a person, whom nothing narrows. */
  scopesOf(subject: Subject): readonly string[] | null
}

const MAX_TOKEN = 4_096

interface Context extends VerifierOptions {
  readonly replay: ReplayMemory
  readonly publicKeys: PublicKeys
  /** The login behind each subject given out, for as long as somebody holds the subject. */
  readonly logins: WeakMap<Subject, Login>
  readonly scopes: WeakMap<Subject, readonly string[]>
}

export function createVerifier(options: VerifierOptions): Verifier {
  const context: Context = {
    ...options,
    replay: options.replay ?? createReplayMemory(),
    publicKeys: publicKeysOf(options.keys),
    logins: new WeakMap(),
    scopes: new WeakMap(),
  }
  const answer = async (work: Promise<Subject | AuthCode>): Promise<Subject | AuthRefusal> => {
    const outcome = await work.catch((): AuthCode => 'token.malformed')
    return typeof outcome === 'string' ? refuse(outcome) : outcome
  }
  return {
    authenticate: async (request, now) => answer(authenticate(context, request, now)),
    current: async (login, now) => answer(current(context, login, now)),
    // A service of which nothing is known may use nothing.
    scopesOf: (subject) => (subject.kind === 'human' ? null : (context.scopes.get(subject) ?? [])),
    loginOf(subject) {
      const login = context.logins.get(subject)
      if (login === undefined) throw new TypeError('not a subject that this verifier gave')
      return login
    },
  }
}

async function authenticate(
  context: Context,
  request: AuthRequest,
  now: number,
): Promise<Subject | AuthCode> {
  const { origin, issuer, since } = context
  const token = readToken(request.headers['authorization'])
  if ('code' in token) return token.code
  const url = requestUrl(origin, request.url)
  if (url === undefined) return 'proof.url'
  const claims = await checkToken(token.value, context, now)
  if (typeof claims === 'string') return claims
  const asked = { method: request.method, url, token: token.value }
  const proof = await checkProof(request.headers['dpop'], asked, now, since)
  if (typeof proof === 'string') return proof
  if (proof.thumbprint !== claims.jkt) return 'proof.key'
  const { sub, client, authn, exp } = claims
  const login = { subject: `${issuer}|${sub}`, login: claims.login, client, authn }
  const found = await lookUp(context, login, now)
  if (typeof found === 'string') return found
  // Last, so that only a proof that would have been accepted takes room.
  const seen = context.replay.remember(proof.thumbprint, proof.jti, proof.until, now)
  if (seen !== 'fresh') return `proof.${seen}`
  const elsewhere = await seenElsewhere(context, proof, now)
  return elsewhere ?? admit(context, login, found, exp)
}

/** Why a proof that is new here is none: another gateway had it, or nobody can tell. */
async function seenElsewhere(
  { proofs }: Context,
  { thumbprint, jti, until }: { readonly thumbprint: string; jti: string; until: number },
  now: number,
): Promise<AuthCode | undefined> {
  try {
    const first = (await proofs?.first(thumbprint, jti, until, now)) ?? true
    return first ? undefined : 'proof.replayed'
  } catch {
    return 'store.unavailable'
  }
}

async function current(context: Context, login: Login, now: number): Promise<Subject | AuthCode> {
  const found = await lookUp(context, login, now)
  if (typeof found === 'string') return found
  const { tokenUntil } = found.row
  if (tokenUntil <= now) return 'token.expired'
  return admit(context, login, found, Math.floor(tokenUntil / 1000))
}

/** The person behind a login, as the store knows them now. */
async function lookUp(context: Context, login: Login, now: number): Promise<Found | AuthCode> {
  const { issuer, store, oidcStore, idps } = context
  const sub = login.subject.slice(issuer.length + 1)
  if (login.subject !== `${issuer}|${sub}`) return 'token.issuer'
  try {
    if (isService(sub)) return await lookUpService(context, login, sub, now)
    const [account, row] = await Promise.all([
      store.findAccount(sub),
      oidcStore.findLogin(login.login, now),
    ])
    if (account === undefined || account.disabled || !(await idps.stands(account)))
      return 'account.disabled'
    return row === undefined || row.sub !== sub ? 'token.revoked' : { account, row }
  } catch {
    return 'store.unavailable'
  }
}

interface Found {
  readonly account: Pick<AccountRow, 'party' | 'vendor' | 'email' | 'groups' | 'roles' | 'outside'>
  readonly row: Pick<StandingLogin, 'stepped' | 'tokenUntil'>
  /** Of a service. */
  readonly service?: ServiceRow
}

/** A token is a service's own: it names no other client, and no login of a person. */
async function lookUpService(
  { serviceStore }: Context,
  { client, login }: Login,
  sub: string,
  now: number,
): Promise<Found | AuthCode> {
  const service = await serviceStore.findService(sub)
  if (service === undefined || !stands(service, now) || client !== sub || login !== sub)
    return 'token.revoked'
  const row = { stepped: null, tokenUntil: service.tokenUntil }
  return { account: { ...service, outside: null }, row, service }
}

function admit(
  context: Context,
  login: Login,
  { account, row, service }: Found,
  tokenExp: number,
): Subject {
  const { party, vendor, email, groups, roles } = account
  const subject: Subject = {
    id: login.subject,
    issuer: context.issuer,
    kind: service === undefined ? 'human' : 'service',
    party,
    vendor,
    email,
    groups,
    roles,
    token_exp: tokenExp,
    authn: newer(login.authn, row.stepped),
    claims: account.outside === null ? {} : { idp: account.outside.idp },
    break_glass: null,
  }
  context.logins.set(subject, login)
  if (service !== undefined) context.scopes.set(subject, service.scopes)
  return subject
}

/** The proof that policy counts: a passkey shown since the sign-in adds its method, and its time is the later one. */
function newer(signIn: Authentication, stepped: Authentication | null): Authentication {
  if (stepped === null || stepped.at < signIn.at) return signIn
  const methods = [...new Set([...signIn.methods, ...stepped.methods])]
  return { methods, acr: stepped.acr, at: stepped.at }
}

function readToken(
  header: string | readonly string[] | undefined,
): { value: string } | { code: AuthCode } {
  if (header === undefined || header === '') return { code: 'token.missing' }
  if (typeof header !== 'string') return { code: 'token.malformed' }
  const [, scheme, value] = /^([A-Za-z]+) +([A-Za-z0-9._~+/=-]+)$/.exec(header) ?? []
  if (scheme === undefined || value === undefined) return { code: 'token.malformed' }
  if (scheme.toLowerCase() !== 'dpop') return { code: 'token.scheme' }
  return value.length > MAX_TOKEN ? { code: 'token.malformed' } : { value }
}

/** Our origin and the path as sent; a request that names another origin is not ours. */
function requestUrl(origin: string, url: string): string | undefined {
  const path = url.startsWith(`${origin}/`) ? url.slice(origin.length) : url
  if (!path.startsWith('/')) return undefined
  return origin + (path.split(/[?#]/, 1)[0] ?? '/')
}

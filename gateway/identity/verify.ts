/**
 * Who is asking: an access token bound to a key (RFC 9449, RFC 9068), checked against the provider's own
 * keys, then against the store: the login must stand and the account be enabled now, and roles and groups
 * are read now. Nothing here throws; whatever goes wrong is a refusal.
 */
import { createLocalJWKSet, decodeProtectedHeader, errors, jwtVerify, type JWTPayload } from 'jose'
import type { IdentityKeys } from './keys.ts'
import { checkProof } from './proof.ts'
import { refuse } from './refusal.ts'
import { createReplayMemory, type ReplayMemory } from './replay.ts'
import type { AccountRow, IdentityStore, LoginRow, OidcStore } from './store.ts'
import type {
  AuthCode,
  AuthRefusal,
  AuthRequest,
  Authentication,
  Login,
  Subject,
} from './subject.ts'

export interface VerifierOptions {
  /** `https://<host>:<port>`: what a proof's `htu` must begin with. */
  readonly origin: string
  readonly issuer: string
  readonly audience: string
  readonly keys: IdentityKeys
  readonly store: Pick<IdentityStore, 'findAccount'>
  readonly oidcStore: Pick<OidcStore, 'findLogin'>
  /** When this process began to remember proofs; older ones are refused. Epoch milliseconds. */
  readonly since: number
  readonly replay?: ReplayMemory
}

export interface Verifier {
  authenticate(request: AuthRequest, now: number): Promise<Subject | AuthRefusal>
  loginOf(subject: Subject): Login
  current(login: Login, now: number): Promise<Subject | AuthRefusal>
}

const MAX_TOKEN = 4_096
const CLOCK_TOLERANCE = 5

interface Claims {
  readonly sub: string
  readonly exp: number
  readonly login: string
  readonly client: string
  readonly jkt: string
  readonly authn: Authentication
}

export function createVerifier(options: VerifierOptions): Verifier {
  const replay = options.replay ?? createReplayMemory()
  const publicKeys = createLocalJWKSet({
    keys: options.keys.signing.map(({ d: _, ...key }) => key),
  })
  const logins = new WeakMap<Subject, Login>()

  /** The person behind a login, as the store knows them now. */
  const lookUp = async (login: Login, now: number): Promise<[AccountRow, LoginRow] | AuthCode> => {
    const sub = login.subject.slice(options.issuer.length + 1)
    if (login.subject !== `${options.issuer}|${sub}`) return 'token.issuer'
    try {
      const [account, row] = await Promise.all([
        options.store.findAccount(sub),
        options.oidcStore.findLogin(login.login, now),
      ])
      if (account === undefined || account.disabled) return 'account.disabled'
      if (row === undefined || row.sub !== sub) return 'token.revoked'
      return [account, row]
    } catch {
      return 'store.unavailable'
    }
  }

  const admit = (login: Login, account: AccountRow, tokenExp: number): Subject => {
    const { party, vendor, email, groups, roles } = account
    const subject: Subject = {
      id: login.subject,
      issuer: options.issuer,
      kind: 'human',
      party,
      vendor,
      email,
      groups,
      roles,
      token_exp: tokenExp,
      authn: login.authn,
      claims: {},
      break_glass: null,
    }
    logins.set(subject, login)
    return subject
  }

  const authenticate = async (request: AuthRequest, now: number): Promise<Subject | AuthCode> => {
    const token = readToken(request.headers['authorization'])
    if ('code' in token) return token.code
    const url = requestUrl(options.origin, request.url)
    if (url === undefined) return 'proof.url'
    const claims = await checkToken(token.value, options, publicKeys, now)
    if (typeof claims === 'string') return claims
    const proof = await checkProof(
      request.headers['dpop'],
      { method: request.method, url, token: token.value },
      now,
      options.since,
    )
    if (typeof proof === 'string') return proof
    if (proof.thumbprint !== claims.jkt) return 'proof.key'
    const { client, authn } = claims
    const login = { subject: `${options.issuer}|${claims.sub}`, login: claims.login, client, authn }
    const found = await lookUp(login, now)
    if (typeof found === 'string') return found
    // Last, so that only a proof that would have been accepted takes room.
    const seen = replay.remember(proof.thumbprint, proof.jti, proof.until, now)
    if (seen !== 'fresh') return `proof.${seen}`
    return admit(login, found[0], claims.exp)
  }

  const current = async (login: Login, now: number): Promise<Subject | AuthCode> => {
    const found = await lookUp(login, now)
    if (typeof found === 'string') return found
    const [account, row] = found
    if (row.tokenUntil <= now) return 'token.expired'
    return admit(login, account, Math.floor(row.tokenUntil / 1000))
  }

  const answer = async (work: Promise<Subject | AuthCode>): Promise<Subject | AuthRefusal> => {
    const outcome = await work.catch((): AuthCode => 'token.malformed')
    return typeof outcome === 'string' ? refuse(outcome) : outcome
  }

  return {
    authenticate: async (request, now) => answer(authenticate(request, now)),
    current: async (login, now) => answer(current(login, now)),
    loginOf(subject) {
      const login = logins.get(subject)
      if (login === undefined) throw new TypeError('not a subject that this verifier gave')
      return login
    },
  }
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

async function checkToken(
  token: string,
  { issuer, audience }: VerifierOptions,
  keys: ReturnType<typeof createLocalJWKSet>,
  now: number,
): Promise<Claims | AuthCode> {
  try {
    const { typ, alg } = decodeProtectedHeader(token)
    if (alg !== 'ES256') return 'token.algorithm'
    if (typ?.toLowerCase() !== 'at+jwt') return 'token.type'
  } catch {
    return 'token.malformed'
  }
  try {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience,
      typ: 'at+jwt',
      algorithms: ['ES256'],
      requiredClaims: ['sub', 'exp', 'iat', 'jti', 'client_id', 'cnf', 'login'],
      clockTolerance: CLOCK_TOLERANCE,
      currentDate: new Date(now),
    })
    return readClaims(payload) ?? 'token.claims'
  } catch (error) {
    return tokenCode(error)
  }
}

/** jose's code and claim, as ours; what it does not know to name is a claim that is missing or misshapen. */
function tokenCode(error: unknown): AuthCode {
  if (error instanceof errors.JWTExpired) return 'token.expired'
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'iss') return 'token.issuer'
    if (error.claim === 'aud') return 'token.audience'
    if (error.claim === 'nbf' || error.claim === 'iat') return 'token.expired'
    return 'token.claims'
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'token.signature'
  if (error instanceof errors.JWKSNoMatchingKey) return 'token.signature'
  return 'token.malformed'
}

function readClaims(payload: JWTPayload): Claims | undefined {
  const { sub, exp, login, client_id: client, cnf, amr, acr, auth_time: at } = payload
  if (typeof sub !== 'string' || typeof exp !== 'number') return undefined
  if (typeof login !== 'string' || typeof client !== 'string') return undefined
  if (typeof cnf !== 'object' || cnf === null || !('jkt' in cnf)) return undefined
  if (typeof cnf.jkt !== 'string' || !Array.isArray(amr)) return undefined
  const methods = amr.filter((method) => typeof method === 'string')
  if (methods.length !== amr.length) return undefined
  if (typeof acr !== 'string' || typeof at !== 'number') return undefined
  return { sub, exp: Math.floor(exp), login, client, jkt: cnf.jkt, authn: { methods, acr, at } }
}

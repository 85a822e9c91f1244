/** One access token (RFC 9068) against our own keys: closed codes for whatever is wrong with it. */
import { createLocalJWKSet, decodeProtectedHeader, errors, jwtVerify, type JWTPayload } from 'jose'
import type { IdentityKeys } from './keys.ts'
import type { AuthCode, Authentication } from './subject.ts'

/** How far the clocks of two gateways may be apart. Seconds. */
const CLOCK_TOLERANCE = 5

export type PublicKeys = ReturnType<typeof createLocalJWKSet>

/** What verifies tokens: every signing key, without its private part. */
export function publicKeysOf({ signing }: IdentityKeys): PublicKeys {
  return createLocalJWKSet({ keys: signing.map(({ d: _, ...key }) => key) })
}

/** What a good token says. */
export interface Claims {
  readonly sub: string
  readonly exp: number
  readonly login: string
  readonly client: string
  readonly jkt: string
  readonly authn: Authentication
}

export interface TokenExpectation {
  readonly issuer: string
  readonly audience: string
  readonly publicKeys: PublicKeys
}

/** The claims of a good token, or what is wrong with it. `now` is epoch milliseconds. */
export async function checkToken(
  token: string,
  { issuer, audience, publicKeys }: TokenExpectation,
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
    const { payload } = await jwtVerify(token, publicKeys, {
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
  const { sub, exp, login, client_id: client } = payload
  const jkt = readThumbprint(payload['cnf'])
  const authn = readAuthentication(payload)
  if (typeof sub !== 'string' || typeof exp !== 'number') return undefined
  if (typeof login !== 'string' || typeof client !== 'string') return undefined
  if (jkt === undefined || authn === undefined) return undefined
  return { sub, exp: Math.floor(exp), login, client, jkt, authn }
}

/** RFC 9449 6.1: `cnf.jkt`. */
function readThumbprint(cnf: unknown): string | undefined {
  if (typeof cnf !== 'object' || cnf === null || !('jkt' in cnf)) return undefined
  return typeof cnf.jkt === 'string' ? cnf.jkt : undefined
}

/** RFC 9068 2.2.1: `auth_time`, `acr`, `amr`. */
function readAuthentication({ amr, acr, auth_time: at }: JWTPayload): Authentication | undefined {
  if (!Array.isArray(amr) || typeof acr !== 'string' || typeof at !== 'number') return undefined
  const methods = amr.filter((method) => typeof method === 'string')
  return methods.length === amr.length ? { methods, acr, at } : undefined
}

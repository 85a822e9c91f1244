/**
 * A provider's public keys, and the check of what it signed. The algorithm is one of a closed list of asymmetric ones,
 * whatever the token or the provider says of itself, so that `none` and an HMAC under a public key are never tried.
 */
import {
  createLocalJWKSet,
  errors,
  jwtVerify,
  type JWTPayload,
  type JWTVerifyOptions,
  type JWTVerifyResult,
} from 'jose'
import { SKEW_S } from './claims.ts'
import { IdpError } from './errors.ts'

const ALGORITHMS = [
  'ES256',
  'ES384',
  'ES512',
  'PS256',
  'PS384',
  'PS512',
  'RS256',
  'Ed25519',
  'EdDSA',
]
/** Keys older than this are fetched again before they are believed. */
const MAX_AGE_MS = 10 * 60_000
/** How soon a key that is not known may make us ask again: who sends rubbish must not make us ask for each. */
const COOLDOWN_MS = 30_000

export interface KeySet {
  /**
   * The claims of a good JWT. `now` is epoch milliseconds. Throws IdpError: idp.token (its detail names the check),
   * idp.unreachable.
   */
  verify(jwt: string, expected: Expected, now: number): Promise<JWTPayload>
}

export interface Expected {
  readonly issuer: string
  readonly audience: string
  /** Which `typ` the header may name, lower-case; one without is taken as `jwt`. */
  readonly types: readonly string[]
  readonly maxAgeSeconds: number
}

type Keys = ReturnType<typeof createLocalJWKSet>

/** `fetchKeys` gives the JSON of the provider's `jwks_uri`. */
export function openKeySet(fetchKeys: () => Promise<unknown>): KeySet {
  let held: { readonly keys: Keys; readonly at: number } | undefined
  let asking: Promise<Keys> | undefined
  const load = async (now: number): Promise<Keys> => {
    asking ??= fetchKeys()
      .then(readKeys)
      .finally(() => (asking = undefined))
    const keys = await asking
    held = { keys, at: now }
    return keys
  }
  return {
    async verify(jwt, { issuer, audience, types, maxAgeSeconds }, now) {
      const options: JWTVerifyOptions = {
        issuer,
        audience,
        algorithms: ALGORITHMS,
        clockTolerance: SKEW_S,
        currentDate: new Date(now),
        maxTokenAge: maxAgeSeconds,
        requiredClaims: ['iat', 'exp'],
      }
      const fresh = held !== undefined && Math.abs(now - held.at) < MAX_AGE_MS ? held : undefined
      const keys = fresh?.keys ?? (await load(now))
      try {
        return ofType(await jwtVerify(jwt, keys, options), types)
      } catch (error) {
        const rotated = error instanceof errors.JWKSNoMatchingKey && fresh !== undefined
        if (!rotated || Math.abs(now - fresh.at) < COOLDOWN_MS) throw tokenError(error)
      }
      const newer = await load(now)
      return jwtVerify(jwt, newer, options).then(
        (result) => ofType(result, types),
        (error: unknown) => {
          throw tokenError(error)
        },
      )
    },
  }
}

/** RFC 8725 3.11: one kind of token never passes for another. */
function ofType(
  { payload, protectedHeader }: JWTVerifyResult,
  types: readonly string[],
): JWTPayload {
  const typ = (protectedHeader.typ ?? 'jwt').toLowerCase().replace(/^application\//, '')
  if (!types.includes(typ)) throw new IdpError('idp.token', 'typ')
  return payload
}

function readKeys(value: unknown): Keys {
  try {
    return createLocalJWKSet(value as Parameters<typeof createLocalJWKSet>[0])
  } catch (cause) {
    throw new IdpError('idp.token', 'keys', { cause })
  }
}

/** Which check said no, in a word for the log. */
function tokenError(error: unknown): IdpError {
  if (error instanceof IdpError) return error
  if (error instanceof errors.JWTExpired)
    return new IdpError('idp.token', error.claim, { cause: error })
  if (error instanceof errors.JWTClaimValidationFailed)
    return new IdpError('idp.token', error.claim, { cause: error })
  if (error instanceof errors.JOSEAlgNotAllowed)
    return new IdpError('idp.token', 'alg', { cause: error })
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys)
    return new IdpError('idp.token', 'kid', { cause: error })
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return new IdpError('idp.token', 'signature', { cause: error })
  return new IdpError('idp.token', 'malformed', { cause: error })
}

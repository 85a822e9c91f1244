/** One DPoP proof against one request (RFC 9449 4.3): a list of checks, in the order of the clause. */
import { createHash } from 'node:crypto'
import { calculateJwkThumbprint, EmbeddedJWK, errors, jwtVerify, type JWTPayload } from 'jose'
import type { AuthCode } from './subject.ts'

/** How old a proof may be, and how far ahead the client's clock may run. Seconds. */
const PROOF_AGE = 60
const PROOF_AHEAD = 5

const ALGORITHMS = ['ES256', 'Ed25519', 'EdDSA']
const MAX_PROOF = 2_048
const MAX_JTI = 128

export interface ProofRequest {
  readonly method: string
  /** Our origin and the path, without query and fragment. */
  readonly url: string
  readonly token: string
}

/** What a good proof says; `until` (epoch milliseconds) is when it could not be shown again anyway. */
export interface Proof {
  readonly thumbprint: string
  readonly jti: string
  readonly until: number
}

/** Checks everything but the replay. `now` and `notBefore` are epoch milliseconds. */
export async function checkProof(
  proof: string | readonly string[] | undefined,
  request: ProofRequest,
  now: number,
  notBefore: number,
): Promise<Proof | AuthCode> {
  // node:http joins repeated headers it does not know with a comma, which no JWT holds.
  if (typeof proof !== 'string' || proof === '' || proof.includes(',')) return 'proof.missing'
  if (proof.length > MAX_PROOF) return 'proof.malformed'
  const verified = await signed(proof, now)
  if (typeof verified === 'string') return verified
  const { payload, thumbprint } = verified
  const { jti, iat } = payload
  if (!isJti(jti) || typeof iat !== 'number' || !Number.isFinite(iat)) return 'proof.malformed'
  const fault = mismatch(payload, request) ?? wrongTime(iat, now, notBefore)
  return fault ?? { thumbprint, jti, until: (iat + PROOF_AGE + 1) * 1000 }
}

function isJti(jti: unknown): jti is string {
  return typeof jti === 'string' && jti !== '' && jti.length <= MAX_JTI
}

function mismatch(payload: JWTPayload, request: ProofRequest): AuthCode | undefined {
  if (payload['htm'] !== request.method) return 'proof.method'
  if (!isSameUrl(payload['htu'], request.url)) return 'proof.url'
  return payload['ath'] === hashToken(request.token) ? undefined : 'proof.token'
}

function wrongTime(iat: number, now: number, notBefore: number): AuthCode | undefined {
  const seconds = now / 1000
  if (iat < seconds - PROOF_AGE || iat > seconds + PROOF_AHEAD) return 'proof.time'
  // The memory of used proofs died with the last process; a proof older than this one might be one of them.
  return iat < Math.floor(notBefore / 1000) ? 'proof.time' : undefined
}

/** RFC 9449 4.2: `ath`. */
function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('base64url')
}

async function signed(
  proof: string,
  now: number,
): Promise<{ payload: JWTPayload; thumbprint: string } | AuthCode> {
  try {
    const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, {
      typ: 'dpop+jwt',
      algorithms: ALGORITHMS,
      currentDate: new Date(now),
    })
    const { jwk } = protectedHeader
    if (jwk === undefined || 'd' in jwk || 'k' in jwk) return 'proof.malformed'
    return { payload, thumbprint: await calculateJwkThumbprint(jwk) }
  } catch (error) {
    const code = error instanceof errors.JOSEError ? error.code : ''
    return BAD_SIGNATURE.has(code) ? 'proof.signature' : 'proof.malformed'
  }
}

const BAD_SIGNATURE = new Set(['ERR_JWS_SIGNATURE_VERIFICATION_FAILED', 'ERR_JOSE_ALG_NOT_ALLOWED'])

function isSameUrl(htu: unknown, url: string): boolean {
  if (typeof htu !== 'string' || htu.length > MAX_PROOF) return false
  const parsed = URL.parse(htu)
  if (parsed === null) return false
  parsed.search = ''
  parsed.hash = ''
  return parsed.href === URL.parse(url)?.href
}

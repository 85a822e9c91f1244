/** The public key of a new passkey: from the COSE that its authenticator gave (RFC 9053) to the form that verifies. */
import { createPublicKey } from 'node:crypto'
import { cose, decodeCredentialPublicKey } from '@simplewebauthn/server/helpers'
import { readKey, type KeyAlgorithm, type SigningKey } from '#approval'

/** COSE algorithm identifiers that passkeys here may have, the preferred one first. */
export const ALGORITHMS = [
  cose.COSEALG.ES256,
  cose.COSEALG.EdDSA,
  cose.COSEALG.RS256,
] as const satisfies readonly cose.COSEALG[]

const b64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')

type CoseKey = ReturnType<typeof decodeCredentialPublicKey>
type Jwk = Readonly<Record<string, string>>

function jwkOf(key: CoseKey): { readonly alg: KeyAlgorithm; readonly jwk: Jwk } | undefined {
  const alg = key.get(cose.COSEKEYS.alg)
  if (cose.isCOSEPublicKeyEC2(key) && alg === cose.COSEALG.ES256) {
    const [x, y] = [key.get(cose.COSEKEYS.x), key.get(cose.COSEKEYS.y)]
    if (key.get(cose.COSEKEYS.crv) !== cose.COSECRV.P256 || x === undefined || y === undefined)
      return undefined
    return { alg: 'ES256', jwk: { kty: 'EC', crv: 'P-256', x: b64(x), y: b64(y) } }
  }
  if (cose.isCOSEPublicKeyOKP(key) && alg === cose.COSEALG.EdDSA) {
    const x = key.get(cose.COSEKEYS.x)
    if (key.get(cose.COSEKEYS.crv) !== cose.COSECRV.ED25519 || x === undefined) return undefined
    return { alg: 'EdDSA', jwk: { kty: 'OKP', crv: 'Ed25519', x: b64(x) } }
  }
  if (cose.isCOSEPublicKeyRSA(key) && alg === cose.COSEALG.RS256) {
    const [n, e] = [key.get(cose.COSEKEYS.n), key.get(cose.COSEKEYS.e)]
    if (n === undefined || e === undefined) return undefined
    return { alg: 'RS256', jwk: { kty: 'RSA', n: b64(n), e: b64(e) } }
  }
  return undefined
}

/** The key in `bytes` (a COSE_Key), or undefined where its type and its algorithm are not a pair we take. */
export function signingKey(bytes: Uint8Array<ArrayBuffer>): SigningKey | undefined {
  try {
    const found = jwkOf(decodeCredentialPublicKey(bytes))
    if (found === undefined) return undefined
    const der = createPublicKey({ key: found.jwk, format: 'jwk' }).export({
      type: 'spki',
      format: 'der',
    })
    const key = { alg: found.alg, spki: der.toString('base64url') }
    return readKey(key) === undefined ? undefined : key
  } catch {
    // Not CBOR, or no point of its curve: no key.
    return undefined
  }
}

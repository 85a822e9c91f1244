/** What holds a private key, behind one call; files, HSMs and tests look alike from here. */
import { createPublicKey, sign as cryptoSign, type KeyObject } from 'node:crypto'
import { CaError } from './errors.ts'

/** What a key of ours signs with; the row in algorithm.ts has the identifiers. */
export type SigningAlgorithm = 'ecdsa-p256-sha256' | 'ecdsa-p384-sha384' | 'ed25519'

export interface Signer {
  readonly algorithm: SigningAlgorithm
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** The signature over `tbs` as it stands in a certificate: Ecdsa-Sig-Value in DER, or Ed25519's 64 bytes. */
  sign(tbs: Uint8Array): Uint8Array | Promise<Uint8Array>
}

const byCurve: Readonly<Record<string, SigningAlgorithm>> = {
  prime256v1: 'ecdsa-p256-sha256',
  secp384r1: 'ecdsa-p384-sha384',
}

function algorithmOf(key: KeyObject): SigningAlgorithm {
  if (key.asymmetricKeyType === 'ed25519') return 'ed25519'
  const curve = key.asymmetricKeyDetails?.namedCurve
  const algorithm = curve === undefined ? undefined : byCurve[curve]
  if (algorithm === undefined)
    throw new CaError('signer.algorithm', 'local', 'a CA key is P-256, P-384 or Ed25519')
  return algorithm
}

/** The hash each algorithm signs; null: the message itself. */
export const hashOf: Readonly<Record<SigningAlgorithm, string | null>> = {
  'ecdsa-p256-sha256': 'sha256',
  'ecdsa-p384-sha384': 'sha384',
  ed25519: null,
}

/**
 * Signs with a key in this process's memory: P-256, P-384 or Ed25519.
 * Throws CaError `signer.algorithm` for any other key. Synchronous: RFC 5280 issuance is one
 * signature, and a thread hop costs more than P-256 itself.
 */
export function softwareSigner(privateKey: KeyObject): Signer {
  const algorithm = algorithmOf(privateKey)
  const hash = hashOf[algorithm]
  const publicKey = new Uint8Array(
    createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
  )
  return {
    algorithm,
    publicKey,
    sign: (tbs) => cryptoSign(hash, tbs, privateKey),
  }
}

/**
 * A private key at rest: EncryptedPrivateKeyInfo (RFC 5958 3) under PBES2 (RFC 8018 6.2) with scrypt
 * (RFC 7914 7) and AES-256-CBC, in PEM. Stock openssl opens it, in twenty years too; that is why it is
 * not a format of our own. CBC authenticates nothing: whoever opens a key compares it with its certificate.
 */
import { createCipheriv, createPrivateKey, scryptSync, type KeyObject } from 'node:crypto'
import { encodePem } from './der/base64.ts'
import { oid } from './der/oid.ts'
import { octetString, sequence, unsignedInteger } from './der/writer.ts'
import type { Random } from './time.ts'

const PBES2 = '1.2.840.113549.1.5.13'
const SCRYPT = '1.3.6.1.4.1.11591.4.11'
const AES_256_CBC = '2.16.840.1.101.3.4.1.42'

/** 16 MiB is what openssl grants scrypt unasked; five passes make up for it. */
const COST = { N: 16_384, r: 8, p: 5 } as const

const SEALED = '-----BEGIN ENCRYPTED PRIVATE KEY-----'
const PLAIN = /-----BEGIN (?:EC |RSA )?PRIVATE KEY-----/

function integer(value: number): Uint8Array {
  return unsignedInteger(Uint8Array.of((value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff))
}

/** The key under `passphrase`, PEM. Takes some 0.2 s, on purpose. */
export function sealKey(key: KeyObject, passphrase: string, random: Random): string {
  const [salt, iv] = [random(16), random(16)]
  const derived = scryptSync(Buffer.from(passphrase, 'utf8'), salt, 32, COST)
  const cipher = createCipheriv('aes-256-cbc', derived, iv)
  const plain = key.export({ type: 'pkcs8', format: 'der' })
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()])
  const derivation = sequence(octetString(salt), integer(COST.N), integer(COST.r), integer(COST.p))
  const parameters = sequence(
    sequence(oid(SCRYPT), derivation),
    sequence(oid(AES_256_CBC), octetString(iv)),
  )
  const der = sequence(sequence(oid(PBES2), parameters), octetString(new Uint8Array(sealed)))
  return encodePem('ENCRYPTED PRIVATE KEY', der)
}

/** `sealed`: encrypted PKCS#8. `plain`: a private key for all to read. Undefined: neither. */
export function kindOfKeyFile(pem: string): 'sealed' | 'plain' | undefined {
  if (pem.includes(SEALED)) return 'sealed'
  return PLAIN.test(pem) ? 'plain' : undefined
}

/**
 * Opens a key file, sealed by us or by openssl. `passphrase`: it is sealed and this does not open it
 * (or it was damaged: that cannot be told apart). `malformed`: it is no key file.
 */
export function openSealed(
  pem: string,
  passphrase: string,
): KeyObject | 'passphrase' | 'malformed' {
  const kind = kindOfKeyFile(pem)
  if (kind === undefined) return 'malformed'
  try {
    return createPrivateKey({ key: pem, format: 'pem', passphrase })
  } catch {
    return kind === 'sealed' ? 'passphrase' : 'malformed'
  }
}

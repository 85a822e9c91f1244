/** A signed bundle: keys for it, signing, and a bundle for this machine's own eyes. */
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { gunzipSync } from 'node:zlib'
import type { KeyObject } from 'node:crypto'
import { loadBundle } from '../bundle.ts'
import type { Bundle } from '../bundle.ts'
import { keyIdOf } from '../key-id.ts'
import { signFiles, signPermit } from '../signature.ts'
import { readTar, writeTar } from '../tar.ts'
import { digestOf } from './sources.ts'
import { TreeError } from './tree.ts'

export interface SigningKey {
  /** PEM, PKCS#8. */
  readonly privateKey: string
  /** PEM, SPKI: what gateways are told to trust. */
  readonly publicKey: string
  readonly keyId: string
}

/** A new P-256 key for signing bundles, sealed with the passphrase where one is given. */
export function newSigningKey(passphrase?: string): SigningKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const seal = passphrase === undefined ? {} : { cipher: 'aes-256-cbc', passphrase }
  return {
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem', ...seal }).toString(),
    publicKey: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    keyId: keyIdOf(publicKey),
  }
}

export interface Release {
  readonly archive: Uint8Array<ArrayBuffer>
  readonly keyId: string
  /** SHA-256, hex, of the archive. */
  readonly digest: string
  readonly files: readonly { readonly name: string; readonly sha256: string }[]
}

interface SealedKey {
  /** PEM, P-256 or P-384. */
  readonly pem: string
  readonly passphrase?: string | undefined
}

/** Why a key does not open, as far as its text says, and what to do. */
function unopened(pem: string, passphrase: string | undefined): [message: string, next: string] {
  if (pem.includes('BEGIN PUBLIC KEY'))
    return ['the signing key is the public half', 'name the private one, without .pub']
  if (pem.includes('ENCRYPTED') && passphrase !== undefined)
    return ['the passphrase does not open the signing key', 'give the one it was sealed with']
  return [
    'the signing key cannot be read',
    'give a PEM, and --passphrase-file where it is sealed; sallyport policy keygen makes one',
  ]
}

function openKey({ pem, passphrase }: SealedKey): KeyObject {
  let key: KeyObject
  try {
    key = createPrivateKey({ key: pem, ...(passphrase === undefined ? {} : { passphrase }) })
  } catch (cause) {
    throw new TreeError(...unopened(pem, passphrase), { cause })
  }
  const curve = key.asymmetricKeyDetails?.namedCurve
  if (curve !== 'prime256v1' && curve !== 'secp384r1')
    throw new TreeError(
      'the signing key is not P-256 or P-384',
      'sallyport policy keygen makes one',
    )
  return key
}

/**
 * The id of a signing key, which it takes to be opened: asked before what takes long is done for it. Errors:
 * TreeError `policy.tree` where the key is of no use, or the passphrase is another.
 */
export function signerId(signer: SealedKey): string {
  return keyIdOf(createPublicKey(openKey(signer)))
}

/**
 * Signs a downgrade permit for this archive: it may come into force although `over` has been. Takes the
 * signed archive, the mark it is written over, and its end in epoch seconds. Errors: TreeError `policy.tree`
 * where the key is of no use or the archive is not signed.
 */
export function permitFor(
  archive: Uint8Array,
  permit: { readonly over: number; readonly expiresAt: number },
  signer: SealedKey,
): { readonly token: string; readonly seq: number; readonly digest: string; keyId: string } {
  const key = openKey(signer)
  const keyId = keyIdOf(createPublicKey(key))
  const seq = seqOf(untrusted(archive))
  const digest = digestOf(archive)
  return { token: signPermit({ seq, digest, ...permit }, { key, keyId }), seq, digest, keyId }
}

/** The number an archive says it has; whoever takes it verifies that. */
function seqOf(files: ReadonlyMap<string, Uint8Array>): number {
  try {
    const text = new TextDecoder().decode(files.get('.signatures.json'))
    const { signatures } = JSON.parse(text) as { signatures: readonly string[] }
    const payload = Buffer.from(signatures[0]?.split('.')[1] ?? '', 'base64url').toString()
    const { seq } = JSON.parse(payload) as { seq?: unknown }
    if (Number.isSafeInteger(seq)) return Number(seq)
    throw new Error('no seq')
  } catch (cause) {
    throw new TreeError('the bundle is not signed', 'name the signed bundle to go back to', {
      cause,
    })
  }
}

/**
 * Signs the files of a bundle. Takes a private key as PEM (P-256 or P-384), the sequence number
 * (grows with every release, from 1) and the time in epoch seconds. Errors: TreeError `policy.tree`
 * where the key is of no use.
 */
export function signRelease(
  files: ReadonlyMap<string, Uint8Array>,
  signer: SealedKey & { readonly seq: number; readonly iat: number },
): Release {
  const key = openKey(signer)
  const keyId = keyIdOf(createPublicKey(key))
  const signature = signFiles(files, { key, keyId, seq: signer.seq, iat: signer.iat })
  const archive = writeTar(new Map([...files, ['.signatures.json', signature]]))
  return {
    archive,
    keyId,
    digest: digestOf(archive),
    files: [...files].map(([name, bytes]) => ({ name, sha256: digestOf(bytes) })),
  }
}

/** The files as one archive, byte for byte the same for the same files. */
export function packed(files: ReadonlyMap<string, Uint8Array>): Uint8Array<ArrayBuffer> {
  return writeTar(files)
}

/** The Rego of a bundle's files, as text by name. */
export function regoOf(files: ReadonlyMap<string, Uint8Array>): Map<string, string> {
  const rego = [...files].filter(([name]) => name.endsWith('.rego'))
  return new Map(rego.map(([name, bytes]) => [name, new TextDecoder().decode(bytes)]))
}

const MAX_ARCHIVE_BYTES = 16 * 1024 * 1024

/**
 * The files of an archive that nobody vouches for: to look at, never to decide with. Takes tar or
 * tar.gz. Errors: PolicyError `bundle.tar`, `bundle.name`, `bundle.duplicate`.
 */
export function untrusted(archive: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const packed = archive[0] === 0x1f && archive[1] === 0x8b
  return readTar(packed ? gunzipSync(archive, { maxOutputLength: MAX_ARCHIVE_BYTES }) : archive)
}

/** The bundle as a gateway would load it, for deciding here: signed by a key that is gone at once. */
export async function bundleHere(files: ReadonlyMap<string, Uint8Array>): Promise<Bundle> {
  const { privateKey, publicKey, keyId } = newSigningKey()
  const { archive } = signRelease(files, { pem: privateKey, seq: 1, iat: 0 })
  return loadBundle(archive, { trust: new Map([[keyId, publicKey]]), highWater: null })
}

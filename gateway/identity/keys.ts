/**
 * The provider's own keys: ES256 to sign tokens, a secret for its cookies. Made at first start, kept in
 * one file that only the gateway's user may read. The first signing key signs; all of them verify.
 */
import { generateKeyPair, randomBytes } from 'node:crypto'
import { chmod, mkdir, open, readFile, rename, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { calculateJwkThumbprint, type JWK } from 'jose'
import { IdentityError } from './errors.ts'

export interface SigningKey {
  readonly kty: 'EC'
  readonly crv: 'P-256'
  readonly x: string
  readonly y: string
  readonly d: string
  readonly kid: string
  readonly alg: 'ES256'
  readonly use: 'sig'
}

export interface IdentityKeys {
  /** Newest first: it signs. */
  readonly signing: readonly SigningKey[]
  /** 32 random bytes each, base64url, newest first: it signs cookies. */
  readonly cookies: readonly string[]
}

/** A new set of keys. */
async function makeIdentityKeys(): Promise<IdentityKeys> {
  const pair = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' })
  return {
    signing: [await signingKey(pair.privateKey.export({ format: 'jwk' }))],
    cookies: [randomBytes(32).toString('base64url')],
  }
}

async function signingKey(jwk: JWK): Promise<SigningKey> {
  const { x, y, d } = jwk
  if (jwk.kty !== 'EC' || jwk.crv !== 'P-256' || x === undefined || y === undefined)
    throw new IdentityError('keys.malformed')
  if (d === undefined) throw new IdentityError('keys.malformed')
  const kid = await calculateJwkThumbprint({ kty: 'EC', crv: 'P-256', x, y })
  return { kty: 'EC', crv: 'P-256', x, y, d, kid, alg: 'ES256', use: 'sig' }
}

/**
 * Reads the keys at `path`, or makes and keeps them there (directory 0700, file 0600, whole or not at all).
 * Errors: keys.malformed, keys.permissions.
 */
export async function openIdentityKeys(path: string): Promise<IdentityKeys> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (text !== undefined) {
    if (((await stat(path)).mode & 0o077) !== 0) throw new IdentityError('keys.permissions')
    return parseKeys(text)
  }
  const keys = await makeIdentityKeys()
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await writePrivateFile(path, `${JSON.stringify(keys, null, 2)}\n`)
  return keys
}

async function parseKeys(text: string): Promise<IdentityKeys> {
  try {
    const { signing, cookies } = JSON.parse(text) as { signing: JWK[]; cookies: string[] }
    const keys = { signing: await Promise.all(signing.map(signingKey)), cookies }
    const whole = cookies.every((key) => Buffer.from(key, 'base64url').length >= 32)
    if (keys.signing.length > 0 && cookies.length > 0 && whole) return keys
  } catch (cause) {
    throw new IdentityError('keys.malformed', { cause })
  }
  throw new IdentityError('keys.malformed')
}

/** Writes a file of mode 0600 so that after a crash it is the old one or the new one, never a part. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.new`
  await using file = await open(temporary, 'wx', 0o600)
  await file.writeFile(text)
  await file.sync()
  // The mask of the process may have taken bits away, never added: say it outright.
  await chmod(temporary, 0o600)
  await rename(temporary, path)
  await using directory = await open(dirname(path), 'r')
  await directory.sync()
}

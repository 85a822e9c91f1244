/** Private keys as files, 0600, made at first start and never overwritten. */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'

export type KeyKind = 'p256' | 'p384' | 'ed25519' | 'ml-dsa-44'

class KeyError extends Error {
  override readonly name = 'KeyError'
  readonly code: 'key.unreadable' | 'key.exposed'
  constructor(code: 'key.unreadable' | 'key.exposed', message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

function generate(kind: KeyKind): KeyObject {
  switch (kind) {
    case 'p256':
      return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
    case 'p384':
      return generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey
    case 'ed25519':
      return generateKeyPairSync('ed25519').privateKey
    case 'ml-dsa-44':
      return generateKeyPairSync('ml-dsa-44').privateKey
  }
}

/** Writes a file that nobody else may read, on disk before this returns; fails where it exists. */
function writeSecret(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  const fd = openSync(path, 'wx', 0o600)
  try {
    const octets = typeof content === 'string' ? Buffer.from(content) : content
    for (let at = 0; at < octets.length;) at += writeSync(fd, octets, at)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  syncDirectory(dirname(path))
}

/** Makes a name in a directory as durable as the file it names. */
function syncDirectory(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/**
 * The key of that name in `directory`, made where it is absent.
 * Throws KeyError `key.exposed` where others may read it, `key.unreadable` where it is not a key.
 */
export function keyFile(directory: string, name: string, kind: KeyKind): KeyObject {
  const path = join(directory, `${name}.key.pem`)
  if (!existsSync(path)) {
    const key = generate(kind)
    writeSecret(path, key.export({ type: 'pkcs8', format: 'pem' }))
    return key
  }
  if ((statSync(path).mode & 0o077) !== 0)
    throw new KeyError('key.exposed', `${path} can be read by others; run: chmod 600 ${path}`)
  try {
    return createPrivateKey(readFileSync(path))
  } catch (cause) {
    throw new KeyError('key.unreadable', `${path} does not hold a private key`, { cause })
  }
}

/** Private keys as files, 0600, made at first start; a file is there in whole or not at all. */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { KeyError } from './errors.ts'

export type KeyKind = 'p256' | 'p384' | 'ed25519' | 'ml-dsa-44'

export function generateKey(kind: KeyKind): KeyObject {
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

/** Names that a crash may leave behind; nobody reads them. */
export const UNFINISHED = '.unfinished-'

/** Puts `content` at `path`, on disk before this returns. A crash leaves the old file or the new one. */
export function replaceFile(path: string, content: string | Uint8Array, mode: number): void {
  const folder = dirname(path)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const unfinished = join(folder, `${UNFINISHED}${basename(path)}`)
  const fd = openSync(unfinished, 'w', mode)
  try {
    const octets = typeof content === 'string' ? Buffer.from(content) : content
    for (let at = 0; at < octets.length;) at += writeSync(fd, octets, at)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(unfinished, path)
  syncDirectory(folder)
}

/** More than a sealed key is. */
const PROBE_BYTES = 4_096

/** Whether a file can come to be at `path`: writes one beside it, on disk, and removes it. Throws what the system says. */
export function probeFile(path: string): void {
  const folder = dirname(path)
  const probe = join(folder, `${UNFINISHED}${basename(path)}`)
  const fd = openSync(probe, 'w', 0o600)
  try {
    for (let at = 0; at < PROBE_BYTES;) at += writeSync(fd, new Uint8Array(PROBE_BYTES - at))
    fsyncSync(fd)
  } finally {
    closeSync(fd)
    rmSync(probe, { force: true })
  }
  syncDirectory(folder)
}

/** Writes a file that nobody else may read, on disk before this returns; fails where it exists. */
export function writeSecret(path: string, content: string | Uint8Array): void {
  // Whoever holds the directory's lock is alone: between the look and the rename nobody writes.
  if (existsSync(path)) throw new KeyError('ca.exists', `${path} is there already`)
  replaceFile(path, content, 0o600)
}

/** Makes a name in a directory as durable as the file it names. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** A secret's text. Throws KeyError `key.exposed` where others may read it, `key.unreadable`. */
export function readSecretFile(path: string, what: string): string {
  let text: string
  try {
    if ((statSync(path).mode & 0o077) !== 0)
      throw new KeyError('key.exposed', `${path} can be read by others; run: chmod 600 ${path}`)
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    if (cause instanceof KeyError) throw cause
    throw new KeyError('key.unreadable', `the ${what} ${path} cannot be read`, {
      cause,
      next: 'check the path and its permissions',
    })
  }
  return text
}

/**
 * The key of that name in `directory`, made where it is absent.
 * Throws KeyError `key.exposed` where others may read it, `key.unreadable` where it is not a key.
 */
export function keyFile(directory: string, name: string, kind: KeyKind): KeyObject {
  const path = join(directory, `${name}.key.pem`)
  if (!existsSync(path)) {
    const key = generateKey(kind)
    writeSecret(path, key.export({ type: 'pkcs8', format: 'pem' }))
    return key
  }
  const text = readSecretFile(path, 'key')
  try {
    return createPrivateKey(text)
  } catch (cause) {
    throw new KeyError('key.unreadable', `${path} does not hold a private key`, { cause })
  }
}

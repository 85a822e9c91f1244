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
  statfsSync,
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
  const fd = openNew(unfinished, mode)
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

/** What a crash left of it goes; what somebody puts there meanwhile, a link to elsewhere, is not written to. */
function openNew(path: string, mode: number): number {
  rmSync(path, { force: true })
  return openSync(path, 'wx', mode)
}

/** More than a sealed key is. */
const PROBE_BYTES = 4_096

/** Whether a file can come to be at `path`: writes one beside it, on disk, and removes it. Throws what the system says. */
export function probeFile(path: string): void {
  const folder = dirname(path)
  const probe = join(folder, `${UNFINISHED}${basename(path)}`)
  const fd = openNew(probe, 0o600)
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

/** What is asked of the system about a file; a test has answers of its own. */
export interface Medium {
  /** As in stat(2). */
  readonly mode: (path: string) => number
  /** `f_type` of statfs(2). */
  readonly fileSystem: (path: string) => number
}
export const disk: Medium = {
  mode: (path) => statSync(path).mode,
  fileSystem: (path) => statfsSync(path).type,
}

/** Who may read a file there is decided when it is mounted, and chmod changes nothing (statfs(2)). */
const WITHOUT_MODES: ReadonlySet<number> = new Set([
  0x4d44, // vfat: what a USB stick comes with
  0x2011bab0, // exfat
  0x5346544e, // ntfs
  0x7366746e, // ntfs3
  0x65735546, // fuse: exfat and ntfs in user space
  0xff534d42, // cifs
  0xfe534d42, // smb2
])

/** Whether others may read it: by its mode, or because the file system keeps none. Throws what the system says. */
export function exposure(path: string, medium: Medium = disk): 'none' | 'mode' | 'file system' {
  if ((medium.mode(path) & 0o077) === 0) return 'none'
  return WITHOUT_MODES.has(medium.fileSystem(path) >>> 0) ? 'file system' : 'mode'
}

/**
 * A secret's text. Throws KeyError `key.exposed` where others may read it, `key.unreadable`.
 * `sealed` says of a text that it tells others nothing: such a one may lie where there are no modes.
 */
export function readSecretFile(
  path: string,
  what: string,
  {
    medium = disk,
    sealed = () => false,
  }: { medium?: Medium; sealed?: (text: string) => boolean } = {},
): string {
  try {
    const exposed = exposure(path, medium)
    if (exposed === 'mode')
      throw new KeyError('key.exposed', `${path} can be read by others; run: chmod 600 ${path}`)
    const text = readFileSync(path, 'utf8')
    if (exposed === 'none' || sealed(text)) return text
    throw new KeyError(
      'key.exposed',
      `${path} can be read by others: its file system keeps no permissions`,
      { next: 'keep it on a file system that does, with mode 600' },
    )
  } catch (cause) {
    if (cause instanceof KeyError) throw cause
    throw new KeyError('key.unreadable', `the ${what} ${path} cannot be read`, {
      cause,
      next: 'check the path and its permissions',
    })
  }
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

/** CA keys as sealed files: written, read back before anybody relies on them, opened with a precise error. */
import { createPublicKey, randomBytes, type KeyObject } from 'node:crypto'
import { existsSync } from 'node:fs'
import { kindOfKeyFile, openSealed, sealKey } from '#ca'
import { KeyError } from './errors.ts'
import { readSecretFile, replaceFile, writeSecret, type Medium } from './file.ts'
import type { Passphrase } from './passphrase.ts'

const random = (bytes: number) => new Uint8Array(randomBytes(bytes))

/** SubjectPublicKeyInfo of a private key, DER. */
export function publicKeyOf(key: KeyObject): Uint8Array {
  return new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' }))
}

/**
 * The key at `path`. With `medium`, what it lies on may be a stick: a file system without modes takes a
 * sealed key. Throws KeyError `key.passphrase`, `key.unreadable`, `key.exposed`.
 */
export function openKeyFile(
  path: string,
  passphrase: Pick<Passphrase, 'text' | 'file'>,
  medium?: Medium,
): KeyObject {
  const sealed = (text: string) => kindOfKeyFile(text) === 'sealed'
  const text = readSecretFile(path, 'key', medium === undefined ? {} : { medium, sealed })
  const opened = openSealed(text, passphrase.text)
  const given =
    passphrase.file === ''
      ? 'the passphrase that was given'
      : `the passphrase in ${passphrase.file}`
  if (opened === 'passphrase')
    throw new KeyError(
      'key.passphrase',
      `${given} does not open ${path}: it is another one, or the file is damaged`,
      { next: `try it: openssl pkey -in ${path} -noout -passin file:FILE` },
    )
  if (opened === 'malformed')
    throw new KeyError('key.unreadable', `${path} does not hold a private key`, {
      next: 'name the file that holds the key',
    })
  return opened
}

/** Seals `key` into a new file and opens it again. Throws KeyError `ca.exists`, `key.mismatch`. */
export function writeKeyFile(
  path: string,
  key: KeyObject,
  passphrase: Passphrase,
  medium?: Medium,
): void {
  writeSecret(path, sealKey(key, passphrase.text, random))
  verifyKeyFile(path, publicKeyOf(key), passphrase, medium)
}

/** Whether the file holds this very key. Throws KeyError. */
export function verifyKeyFile(
  path: string,
  publicKey: Uint8Array,
  passphrase: Pick<Passphrase, 'text' | 'file'>,
  medium?: Medium,
): void {
  if (!Buffer.from(publicKeyOf(openKeyFile(path, passphrase, medium))).equals(publicKey))
    throw new KeyError('key.mismatch', `${path} holds another key than the certificate names`)
}

/** Seals a key that an earlier version wrote for all to read. True if it was such a one. */
export function sealPlainKey(path: string, passphrase: Passphrase): boolean {
  if (!existsSync(path) || kindOfKeyFile(readSecretFile(path, 'key')) !== 'plain') return false
  const key = openKeyFile(path, passphrase)
  replaceFile(path, sealKey(key, passphrase.text, random), 0o600)
  verifyKeyFile(path, publicKeyOf(key), passphrase)
  return true
}

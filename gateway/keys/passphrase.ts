/** What CA keys are sealed with: from a file of the operator's, or made here as the weaker default. */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { KeyError } from './errors.ts'
import { readSecretFile, writeSecret } from './file.ts'

export interface Passphrase {
  readonly text: string
  /** Empty for one that was given to a command. */
  readonly file: string
  /** Made by this node and kept in its data directory: whoever copies that has both. */
  readonly beside: boolean
}

const LEAST = 12

/** A passphrase that somebody gave for a copy. Throws KeyError `key.passphrase` (short, or several lines). */
export function givenPassphrase(text: string): Passphrase {
  assertPassphrase(text, 'the passphrase')
  return { text, file: '', beside: false }
}

function assertPassphrase(text: string, what: string): void {
  if (text.length >= LEAST && !text.includes('\n')) return
  throw new KeyError('key.passphrase', `${what} must be one line of at least ${LEAST} characters`, {
    next: 'put a longer one into the file, alone on one line',
  })
}

/**
 * The passphrase in `file`, one line, at least 12 characters; without a file, the one under
 * `<data>/keys`, made at the first call. Never from arguments or the environment.
 * Throws KeyError `key.unreadable`, `key.exposed`, `key.passphrase` (empty or short).
 */
export function readPassphrase(data: string, file: string | undefined): Passphrase {
  const path = file ?? join(data, 'keys', 'ca-passphrase')
  if (file === undefined && !existsSync(path))
    writeSecret(path, `${randomBytes(24).toString('base64url')}\n`)
  const text = readSecretFile(path, 'passphrase file').replace(/\r?\n$/, '')
  assertPassphrase(text, `the passphrase in ${path}`)
  return { text, file: path, beside: file === undefined }
}

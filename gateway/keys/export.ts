/** The root key leaves the node: written out, read back, recorded, and only then removed. */
import { createHash, type KeyObject } from 'node:crypto'
import { existsSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { kindOfKeyFile } from '#ca'
import { initCa } from './acts.ts'
import { KeyError } from './errors.ts'
import { exposure, probeFile, syncDirectory, type Medium } from './file.ts'
import type { Passphrase } from './passphrase.ts'
import { absent, act, alone, dateOf, keyIdOf, readDer, spkiOf, type CaRoom } from './room.ts'
import { openKeyFile, verifyKeyFile, writeKeyFile } from './sealed.ts'
import { readState, type CaState } from './state.ts'

export interface Exported {
  readonly file: string
  readonly sha256: string
  /** What to know about the place, in sentences; empty where there is nothing. */
  readonly warnings: readonly string[]
}

/**
 * Writes the root key to `to`, sealed under `passphrase`, opens the copy, and only then takes the
 * key off this node. A file at `to` that holds the same key under it is taken as that copy.
 * Throws KeyError `ca.exported`, `ca.absent`, `ca.exists`, `key.passphrase`.
 */
export async function exportRoot(
  room: CaRoom,
  to: string,
  passphrase: Passphrase,
): Promise<Exported> {
  return await alone(room, async (state) => {
    const at = state.roots.findIndex(({ key }) => key.kind === 'file')
    const root = state.roots[at]
    if (root?.key.kind !== 'file') throw noRootKey(room, state)
    const was = root.key.file
    const certificate = readDer(room, root.certificate)
    const key = openKeyFile(join(room.directory, was), room.passphrase)
    const target = assertPlace(room, to)
    if (!existsSync(target)) copyKey(target, key, passphrase, room.medium)
    room.step('copy')
    assertCopy(target, spkiOf(certificate), passphrase, room.medium)
    room.step('verified')
    const sha256 = createHash('sha256').update(readFileSync(target)).digest('hex')
    const roots = state.roots.with(at, {
      ...root,
      key: { kind: 'exported', at: room.now(), was, sha256 },
    })
    const message = `root key exported to a file with SHA-256 ${sha256}, and taken off this node`
    const told = act(room, {
      operation: 'ca:export-root',
      verb: 'delete',
      entity: keyIdOf(certificate),
      message,
    })
    return await Promise.resolve({
      state: { ...state, roots },
      acts: [told],
      value: { file: target, sha256, warnings: warningsOf(target, room.medium), was },
    })
  }).then(({ was, ...exported }) => {
    // The state says that a verified copy exists; should this not happen, the next start does it.
    rmSync(join(room.directory, was), { force: true })
    syncDirectory(room.directory)
    room.step('removed')
    return exported
  })
}

function warningsOf(target: string, medium: Medium): string[] {
  if (exposure(target, medium) === 'none') return []
  return [
    `the file system of ${target} keeps no permissions: whoever holds the medium can copy the file, and only the passphrase keeps the key from them`,
  ]
}

/**
 * Makes the CA, or finishes making it, and takes its root key off the node to `to`. Before anything is
 * made the place has to be free and to take a file, on disk; what fails after that says where the key
 * is. Throws KeyError as above, `ca.exists` for a file that is there, CaError.
 */
export async function initAway(
  room: CaRoom,
  to: string,
  passphrase: Passphrase,
): Promise<Exported> {
  const made = readState(room.directory) === undefined
  assertDeparture(room, to)
  await initCa(room)
  try {
    return await exportRoot(room, to, passphrase)
  } catch (cause) {
    // Of a CA that was there nothing has changed, and a key that is recorded as away is not here.
    const here = readState(room.directory)?.roots.some(({ key }) => key.kind === 'file') === true
    if (!made || !here) throw cause
    const { code } = cause instanceof KeyError ? cause : ({ code: 'key.unwritable' } as const)
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new KeyError(
      code,
      `the CA was made, but its root key is STILL on this node, for it could not leave: ${why}`,
      {
        cause,
        next: `mend that, then: sallyport ca export-root --data ${dirname(room.directory)} --to FILE --passphrase-file FILE`,
      },
    )
  }
}

/**
 * There is a root key to take away, and `to` will do as a place for it, before anybody is asked for a
 * passphrase. Changes nothing. Throws KeyError `ca.exported`, `ca.exists`, `key.unwritable`.
 */
export function assertDeparture(room: CaRoom, to: string): void {
  const state = readState(room.directory)
  if (state !== undefined && !state.roots.some(({ key }) => key.kind === 'file'))
    throw noRootKey(room, state)
  const target = assertPlace(room, to)
  if (state === undefined) assertFree(target)
}

/** Nothing is there yet, and a file can be. Throws KeyError `ca.exists`, `key.unwritable`. */
function assertFree(target: string): void {
  if (existsSync(target))
    throw new KeyError('ca.exists', `${target} is there already`, {
      next: 'nothing was changed; name a file that is not there yet',
    })
  try {
    probeFile(target)
  } catch (cause) {
    throw unwritable(target, cause)
  }
}

/**
 * Where a copy may go. Throws KeyError `ca.exists` for a place in the data directory, however it is
 * named, `key.unwritable` for none.
 */
function assertPlace(room: Pick<CaRoom, 'directory'>, to: string): string {
  const target = resolve(to)
  const folder = dirname(target)
  if (!existsSync(folder))
    throw new KeyError('key.unwritable', `the folder ${folder} is not there`, {
      next: 'nothing was changed; mount the medium or make the folder first',
    })
  const data = dirname(room.directory)
  if (!existsSync(data) || !isWithin(realpathSync(data), realpathSync(folder))) return target
  throw new KeyError('ca.exists', `${to} is inside the directory that the key is to leave`, {
    next: 'choose a place outside the data directory, best on a medium that you can take away',
  })
}

function isWithin(outer: string, inner: string): boolean {
  const way = relative(outer, inner)
  return way !== '..' && !way.startsWith('../') && !isAbsolute(way)
}

function noRootKey(room: CaRoom, { roots }: CaState): KeyError {
  const [current] = roots
  if (current === undefined) return absent(room)
  if (current.key.kind === 'foreign')
    return new KeyError('ca.exported', 'the root is that of a CA above, its key was never here')
  const { at, sha256 } =
    current.key.kind === 'exported' ? current.key : { at: 0, sha256: 'unknown' }
  return new KeyError(
    'ca.exported',
    `the root key left this node ${dateOf(at)}, in a file with SHA-256 ${sha256}`,
    { next: 'copy that file; nothing here can make another' },
  )
}

function copyKey(target: string, key: KeyObject, passphrase: Passphrase, medium: Medium): void {
  try {
    writeKeyFile(target, key, passphrase, medium)
  } catch (cause) {
    if (cause instanceof KeyError) throw cause
    throw unwritable(target, cause)
  }
}

function unwritable(target: string, cause: unknown): KeyError {
  return new KeyError('key.unwritable', `the copy could not be written to ${target}`, {
    cause,
    next: 'nothing was changed; check the path, its permissions and the space there',
  })
}

/** The file is a sealed copy of the key. Throws KeyError `key.mismatch` where it is something else, `key.exposed`. */
function assertCopy(
  target: string,
  publicKey: Uint8Array,
  passphrase: Passphrase,
  medium: Medium,
): void {
  try {
    verifyKeyFile(target, publicKey, passphrase, medium)
    if (kindOfKeyFile(readFileSync(target, 'utf8')) !== 'sealed')
      throw new KeyError('key.mismatch', `${target} holds the key, but open for all who have it`)
  } catch (cause) {
    if (!(cause instanceof KeyError) || cause.code === 'key.exposed') throw cause
    throw new KeyError(
      'key.mismatch',
      `${target} is there already and is no copy of this root key under this passphrase`,
      { cause, next: 'nothing was changed; name a file that is not there yet' },
    )
  }
}

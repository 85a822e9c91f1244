/**
 * `ca/state.json`: which CA certificates this node has, what each is for and where its key is. One
 * file, replaced in one rename: every act on the CA prepares its files first and takes effect with it.
 * An act's record for the log stands in the same file, so that neither exists without the other.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Type, type Static } from 'typebox'
import { Value } from 'typebox/value'
import { DirectoryInUse, lockDirectory } from '../store/sqlite/lock.ts'
import { KeyError } from './errors.ts'
import { replaceFile, syncDirectory, UNFINISHED } from './file.ts'

const Name = Type.String({ pattern: '^[a-z0-9][a-z0-9.-]{0,80}$' })

const KeyPlace = Type.Union([
  /** Sealed, in this directory. */
  Type.Object({ kind: Type.Literal('file'), file: Name }),
  /** In the configured token. */
  Type.Object({ kind: Type.Literal('pkcs11'), label: Type.String({ minLength: 1 }) }),
  /** Written out, verified, and taken off this node. */
  Type.Object({
    kind: Type.Literal('exported'),
    at: Type.Integer(),
    was: Name,
    sha256: Type.String(),
  }),
  /** Somebody else's. */
  Type.Object({ kind: Type.Literal('foreign') }),
])

const Root = Type.Object({ certificate: Name, key: KeyPlace, since: Type.Integer() })

const IssuingCa = Type.Object({
  certificate: Name,
  /** What is between it and its root, its own issuer first. */
  above: Type.Array(Name),
  key: KeyPlace,
  state: Type.Union([Type.Literal('active'), Type.Literal('next'), Type.Literal('retired')]),
  since: Type.Integer(),
  /** When a `next` one begins to sign. */
  active_from: Type.Union([Type.Integer(), Type.Null()]),
})

const Act = Type.Object({
  id: Type.String(),
  at: Type.Integer(),
  by: Type.String(),
  operation: Type.String(),
  verb: Type.Union([Type.Literal('create'), Type.Literal('update'), Type.Literal('delete')]),
  entity: Type.String(),
  message: Type.String(),
})

const State = Type.Object({
  v: Type.Literal(1),
  tenant: Type.String(),
  /** The one that devices pin comes first. */
  roots: Type.Array(Root),
  issuers: Type.Array(IssuingCa),
  /** A key whose certificate a CA above us has yet to make. */
  requested: Type.Union([
    Type.Object({ key: KeyPlace, csr: Name, since: Type.Integer() }),
    Type.Null(),
  ]),
  /** Certificates that join two roots. */
  crosses: Type.Array(Name),
  /** What the log has yet to hear. */
  acts: Type.Array(Act),
})

export type KeyPlace = Static<typeof KeyPlace>
export type IssuingEntry = Static<typeof IssuingCa>
export type Act = Static<typeof Act>
export type CaState = Static<typeof State>

export const STATE_FILE = 'state.json'

export function emptyState(tenant: string): CaState {
  return { v: 1, tenant, roots: [], issuers: [], requested: null, crosses: [], acts: [] }
}

/** The state, or undefined where no CA was made yet. Throws KeyError `ca.state`. */
export function readState(directory: string): CaState | undefined {
  const path = join(directory, STATE_FILE)
  if (!existsSync(path)) return undefined
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    throw new KeyError('ca.state', `${path} is not JSON: restore it from a copy`, { cause })
  }
  if (Value.Check(State, value)) return value
  const place = Value.Errors(State, value)[0]?.instancePath ?? ''
  throw new KeyError('ca.state', `${path} is wrong at ${place}: restore it from a copy`)
}

/** Makes `state` the one that counts. */
export function commitState(directory: string, state: CaState): void {
  replaceFile(join(directory, STATE_FILE), `${JSON.stringify(state, null, 2)}\n`, 0o600)
}

/** One change at a time, node or command. Throws KeyError `ca.busy`. */
export function lockCa(directory: string): Disposable {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  try {
    return lockDirectory(join(directory, 'lock'))
  } catch (cause) {
    if (!(cause instanceof DirectoryInUse)) throw cause
    throw new KeyError('ca.busy', 'another command is changing the CA; try again', { cause })
  }
}

/** Files that acts make; what is not of these shapes is not ours to move. */
const OURS = /^(?:issuing|root|above|cross|request)-[a-z0-9-]+\.(?:crt|csr|key\.pem)$/

function namedBy(state: CaState): ReadonlySet<string> {
  const keys = [...state.roots, ...state.issuers].map(({ key }) => key)
  if (state.requested !== null) keys.push(state.requested.key)
  return new Set([
    ...keys.flatMap((key) => (key.kind === 'file' ? [key.file] : [])),
    ...[...state.roots, ...state.issuers].map(({ certificate }) => certificate),
    ...state.issuers.flatMap(({ above }) => above),
    ...state.crosses,
    ...(state.requested === null ? [] : [state.requested.csr]),
  ])
}

/**
 * Puts right what a crash in the middle of an act left, and says what that was, a sentence each:
 * half-written files go, files that no state names are put aside, and a root key that was exported
 * and verified is taken off. The caller holds the lock.
 */
export function resolveLeftovers(directory: string, state: CaState | undefined): string[] {
  const said: string[] = []
  const remove = (name: string) => {
    rmSync(join(directory, name))
    syncDirectory(directory)
  }
  if (!existsSync(directory)) return said
  for (const name of readdirSync(directory).filter((each) => each.startsWith(UNFINISHED))) {
    remove(name)
    said.push(
      `${name.slice(UNFINISHED.length)} was being written when the process ended; that half was removed`,
    )
  }
  if (state === undefined) return said
  for (const { key } of state.roots)
    if (key.kind === 'exported' && existsSync(join(directory, key.was))) {
      remove(key.was)
      said.push('the root key had been exported and verified but was still here; it was removed')
    }
  const named = namedBy(state)
  for (const name of readdirSync(directory).filter((each) => OURS.test(each) && !named.has(each))) {
    mkdirSync(join(directory, 'unused'), { recursive: true, mode: 0o700 })
    renameSync(join(directory, name), join(directory, 'unused', name))
    syncDirectory(directory)
    said.push(`${name} belongs to an act that did not take effect; it is in ca/unused now`)
  }
  return said
}

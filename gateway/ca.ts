/** The CA's administration as the command line asks for it; a running node takes each change over by itself. */
import { existsSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import type { Config } from './config.ts'
import { activateDue, initCa, rotate, type Rotated, type RotateOptions } from './keys/acts.ts'
import {
  importIssuing,
  requestSubordinate,
  type Imported,
  type ImportOptions,
} from './keys/bring.ts'
import { assertDeparture, exportRoot, initAway, type Exported } from './keys/export.ts'
import { KeyError } from './keys/errors.ts'
import { givenPassphrase, type Passphrase } from './keys/passphrase.ts'
import { absent, openRoom, type CaRoom } from './keys/room.ts'
import { readState } from './keys/state.ts'
import { describeCa, type CaStatus } from './keys/status.ts'
import { toConfig, type GatewayArguments } from './run.ts'
import { SqliteCaStore } from './store/sqlite/ca.ts'
import { SqliteThread } from './store/sqlite/thread.ts'

export type { CaStatus, Exported, Imported, ImportOptions, Rotated, RotateOptions }

async function within<T>(
  given: GatewayArguments,
  work: (room: CaRoom, config: Config) => Promise<T>,
): Promise<T> {
  const config = toConfig(given)
  using room = openRoom(config, `operator|${userInfo().username}`)
  return await work(room, config)
}

/** Where the root key goes. Without a passphrase the node's own seals it, unless that stays beside it. */
export interface Departure {
  readonly to: string
  /** Asked for once it is needed and the place will do; undefined where there is none. */
  readonly passphrase: () => Promise<string | undefined>
}
export type Initiated = CaStatus & {
  /** The copy of the root key that left the node now; null where it was kept or had left before. */
  readonly exported: Exported | null
}

/**
 * Makes root and issuing CA where there are none, and takes the root key off the node: `root` says
 * where to, null keeps it. Nothing is made where the key cannot leave from the start: no folder, a
 * file there already, a medium that takes none. Where it fails later, the error says that the CA was
 * made and the root key is still here. Throws ConfigError, KeyError, CaError.
 */
export async function caInit(given: GatewayArguments, root: Departure | null): Promise<Initiated> {
  return await within(given, async (room, config) => {
    const away = readState(room.directory)?.roots.every(({ key }) => key.kind !== 'file') ?? false
    const exported = root === null || away ? null : await depart(room, config, root)
    if (exported === null) await initCa(room)
    return { ...(await statusOf(room, config)), exported }
  })
}

async function depart(
  room: CaRoom,
  config: Config,
  { to, passphrase }: Departure,
): Promise<Exported> {
  assertDeparture(room, to)
  return await initAway(room, to, sealOf(room, config, await passphrase()))
}

/** What seals a copy of the root key. Throws KeyError `key.passphrase`. */
function sealOf(room: CaRoom, { ca }: Config, passphrase: string | undefined): Passphrase {
  if (passphrase !== undefined) return givenPassphrase(passphrase)
  if (ca?.passphrase_file !== undefined) return room.passphrase
  throw new KeyError(
    'key.passphrase',
    'the root key leaves this node sealed, and the passphrase that the node made for itself stays here',
    { next: 'give it another, kept elsewhere: a file with one line of at least 12 characters' },
  )
}

/** A key here, and the request (PEM) that a CA above us is to sign. Throws as above. */
export async function caRequest(given: GatewayArguments): Promise<string> {
  return await within(given, requestSubordinate)
}

/** What there is. Changes nothing. Throws KeyError `ca.absent`. */
export async function caStatus(given: GatewayArguments): Promise<CaStatus> {
  return await within(given, statusOf)
}

async function statusOf(room: CaRoom, config: Config): Promise<CaStatus> {
  const state = readState(room.directory)
  if (state === undefined) throw absent(room)
  return { ...describeCa(room, state), certificates: await countsOf(config) }
}

async function countsOf({ data, tenant }: Config): Promise<CaStatus['certificates']> {
  const path = join(data, 'store.sqlite')
  if (!existsSync(path)) return null
  await using thread = await SqliteThread.open(path)
  return await new SqliteCaStore(thread).countCertificates(tenant)
}

/** A new issuing CA, and with `root` a new root. Throws as acts.ts says. */
export async function caRotate(given: GatewayArguments, options: RotateOptions): Promise<Rotated> {
  return await within(given, async (room) => {
    if (readState(room.directory) === undefined) throw absent(room)
    // Without a running gateway nobody let a CA sign whose time has come.
    await activateDue(room)
    return await rotate(room, options)
  })
}

/** Takes the root key off the node. Without a passphrase the node's own seals the copy. */
export async function caExportRoot(
  given: GatewayArguments,
  { to, passphrase }: Departure,
): Promise<Exported> {
  return await within(given, async (room, config) => {
    if (readState(room.directory) === undefined) throw absent(room)
    assertDeparture(room, to)
    return await exportRoot(room, to, sealOf(room, config, await passphrase()))
  })
}

/** Brings an issuing CA of another root. Throws as acts.ts says. */
export async function caImport(given: GatewayArguments, options: ImportOptions): Promise<Imported> {
  return await within(given, async (room) => await importIssuing(room, options))
}

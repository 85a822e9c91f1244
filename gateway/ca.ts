/** The CA's administration as the command line asks for it; a running node takes each change over by itself. */
import { existsSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import type { Config } from './config.ts'
import {
  exportRoot,
  importIssuing,
  initCa,
  requestSubordinate,
  rotate,
  type Exported,
  type ImportOptions,
  type Rotated,
  type RotateOptions,
} from './keys/acts.ts'
import { KeyError } from './keys/errors.ts'
import { openRoom, type CaRoom } from './keys/room.ts'
import { readState } from './keys/state.ts'
import { describeCa, type CaStatus } from './keys/status.ts'
import { toConfig, type GatewayArguments } from './run.ts'
import { SqliteCaStore } from './store/sqlite/ca.ts'
import { SqliteThread } from './store/sqlite/thread.ts'

export type { CaStatus, Exported, ImportOptions, Rotated, RotateOptions }

async function within<T>(
  given: GatewayArguments,
  work: (room: CaRoom, config: Config) => Promise<T>,
): Promise<T> {
  const config = toConfig(given)
  using room = openRoom(config, `operator|${userInfo().username}`)
  return await work(room, config)
}

/** Makes root and issuing CA where there are none. Throws ConfigError, KeyError, CaError. */
export async function caInit(given: GatewayArguments): Promise<CaStatus> {
  return await within(given, async (room, config) => {
    await initCa(room)
    return await statusOf(room, config)
  })
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
  if (state === undefined)
    throw new KeyError(
      'ca.absent',
      'there is no CA yet: run sallyport ca init, or start the gateway',
    )
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
  return await within(given, async (room) => await rotate(room, options))
}

/** Takes the root key off the node. Without a passphrase the node's own seals the copy. */
export async function caExportRoot(
  given: GatewayArguments,
  to: string,
  passphrase: string | undefined,
): Promise<Exported> {
  return await within(given, async (room) => {
    if (passphrase === undefined && room.passphrase.beside)
      throw new KeyError(
        'key.passphrase',
        'the node made its own passphrase, which stays on it: give the copy another with --passphrase-file FILE',
      )
    const own = {
      text: passphrase ?? room.passphrase.text,
      file: 'the file given for it',
      beside: false,
    }
    return await exportRoot(room, to, own)
  })
}

/** Brings an issuing CA of another root. Throws as acts.ts says. */
export async function caImport(given: GatewayArguments, options: ImportOptions): Promise<Rotated> {
  return await within(given, async (room) => await importIssuing(room, options))
}

/** The node's own log: which epoch of it is written, where its keys lie, and the rotation to the next. docs/audit.md section "Epochs". */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import {
  openEpoched,
  rotateNodeLog,
  type AuditLog,
  type EndedEpoch,
  type EpochedLog,
  type EpochKeys,
  type NodeLogOptions,
} from '#audit'
import type { Config } from './config.ts'
import { keyFile, replaceFile, syncDirectory } from './keys/file.ts'
import { toConfig, type GatewayArguments } from './run.ts'
import { lockDirectory } from './store/sqlite/lock.ts'
import { VERSION } from './version.ts'

const MIB = 1024 * 1024
const KINDS = ['ed25519', 'ml-dsa-44'] as const

/** The first epoch's have no number: they are from before there was a second. */
const nameOf = (epoch: number, kind: (typeof KINDS)[number]): string =>
  epoch === 1 ? `log-${kind}` : `log-${epoch}-${kind}`

/** Keys of a log's epochs as files in `directory`. */
export function epochKeys(directory: string): EpochKeys {
  const path = (epoch: number, kind: (typeof KINDS)[number]): string =>
    join(directory, `${nameOf(epoch, kind)}.key.pem`)
  const read = (epoch: number): ReturnType<EpochKeys['read']> =>
    KINDS.every((kind) => existsSync(path(epoch, kind)))
      ? {
          ed25519: keyFile(directory, nameOf(epoch, 'ed25519'), 'ed25519'),
          mlDsa44: keyFile(directory, nameOf(epoch, 'ml-dsa-44'), 'ml-dsa-44'),
        }
      : null
  const remove = (epoch: number): void => {
    const there = KINDS.map((kind) => path(epoch, kind)).filter((file) => existsSync(file))
    for (const file of there) rmSync(file)
    if (there.length > 0) syncDirectory(directory)
  }
  return {
    read,
    remove,
    make: (epoch) => {
      // Of the first one a start may have been killed between the two: what is there may have signed.
      if (epoch > 1) remove(epoch)
      return {
        ed25519: keyFile(directory, nameOf(epoch, 'ed25519'), 'ed25519'),
        mlDsa44: keyFile(directory, nameOf(epoch, 'ml-dsa-44'), 'ml-dsa-44'),
      }
    },
    newest: () => {
      const names = existsSync(directory) ? readdirSync(directory) : []
      const epochs = names.map((name) => /^log(?:-(\d{1,9}))?-ed25519\.key\.pem$/.exec(name))
      return Math.max(0, ...epochs.map((match) => (match === null ? 0 : Number(match[1] ?? 1))))
    },
  }
}

function optionsOf(config: Config, now: () => number): NodeLogOptions {
  return {
    directory: join(config.data, 'log', config.gateway),
    stem: `${config.tenant}/audit/${config.gateway}`,
    keys: epochKeys(join(config.data, 'keys')),
    clock: { now },
    random: (bytes) => randomBytes(bytes),
    node: config.gateway,
    version: VERSION,
    tenant: config.tenant,
    limits: {
      closeoutBytes: config.log_space.closeout_mib * MIB,
      breakglassBytes: config.log_space.breakglass_mib * MIB,
      floorBytes: config.log_space.floor_mib * MIB,
      warnBytes: config.log_space.warn_mib * MIB,
    },
  }
}

/** `log-keys.txt` for the newest epoch, and one for each that ended: to be handed to auditors, each whole or as it was. */
export function writeVkeys(
  data: string,
  { log, ended }: { readonly log: Pick<AuditLog, 'vkeys'>; readonly ended: readonly EndedEpoch[] },
): void {
  const write = (name: string, vkeys: readonly string[]): void =>
    replaceFile(join(data, name), vkeys.map((key) => `${key}\n`).join(''), 0o644)
  for (const { epoch, vkeys } of ended) write(`log-keys-${epoch}.txt`, vkeys)
  write('log-keys.txt', log.vkeys)
}

/** Opens the node's log, and finishes a rotation that was cut short. Throws AuditError, KeyError. */
export async function openLogOf(config: Config, now: () => number): Promise<EpochedLog> {
  const log = await openEpoched(optionsOf(config, now))
  try {
    writeVkeys(config.data, { log, ended: log.ended })
    return log
  } catch (error) {
    await log.close()
    throw error
  }
}

/** What a rotation did, as the command says it. */
export interface LogRotated {
  /** `note`: its last head as it was signed. Whoever keeps it can show later what the epoch ended with, its keys being gone. */
  readonly ended: {
    readonly origin: string
    readonly events: number
    readonly root: string
    readonly note: string
  }
  readonly origin: string
  readonly epoch: number
  /** The log's folder, and the file with its verifier keys. */
  readonly directory: string
  readonly keys_file: string
  /** It had been begun before, and was brought to its end now. */
  readonly resumed: boolean
}

/**
 * Ends the epoch of the log of a gateway that does not run, and begins the next, under new keys. Throws DirectoryInUse
 * where it runs, ConfigError, and what opening the log throws; then the next start or rotation does the rest. `told` hears the
 * last head of the old as soon as that has ended, before the files with the verifier keys are written, which may fail.
 */
export async function rotateLog(
  given: GatewayArguments,
  {
    now = Date.now,
    step,
    told,
  }: {
    readonly now?: () => number
    readonly step?: NodeLogOptions['step']
    readonly told?: (note: string) => void
  } = {},
): Promise<LogRotated> {
  const config = toConfig(given)
  mkdirSync(config.data, { recursive: true, mode: 0o700 })
  using _lock = lockDirectory(join(config.data, 'lock'))
  const options = optionsOf(config, now)
  const { ended, log, epoch, resumed } = await rotateNodeLog(
    { ...options, ...(step === undefined ? {} : { step }) },
    { uid: `operator|${userInfo().username}`, party: 'staff' },
  )
  try {
    told?.(ended.last.note)
    writeVkeys(config.data, { log, ended: [ended] })
  } finally {
    await log.close()
  }
  const { origin, last } = ended
  return {
    ended: { origin, events: last.size, root: last.root, note: last.note },
    origin: log.origin,
    epoch,
    directory: log.directory,
    keys_file: join(config.data, 'log-keys.txt'),
    resumed,
  }
}

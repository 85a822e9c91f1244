/** A node whose log goes through epochs: what its gateways do, and what lies on its disk then. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import {
  AuditError,
  joinOf,
  openNodeLog,
  readLog,
  rotateNodeLog,
  type NodeLog,
  type NodeLogOptions,
  type Rotation,
} from '#audit'
import { frameBatch, sealFrame } from '../../audit/segment.ts'
import { epochKeys } from '../../gateway/epochs.ts'
import { stats, temporary } from './fixture.ts'

export const stem = 'sallyport.test/audit/n1'

export interface Node {
  readonly options: NodeLogOptions
  /** The folder of an epoch. */
  readonly at: (epoch: number) => string
  readonly keyFiles: () => string[]
}

export function node(): Node {
  const folder = temporary()
  const [directory, keys] = [join(folder, 'log'), join(folder, 'keys')]
  mkdirSync(keys)
  return {
    options: {
      directory,
      stem,
      keys: epochKeys(keys),
      clock: { now: () => Date.now() },
      random: (n) => randomBytes(n),
    },
    at: (epoch) => join(directory, String(epoch)),
    keyFiles: () => readdirSync(keys).toSorted(),
  }
}

export async function open({ options }: Node): Promise<NodeLog> {
  const opened = await openNodeLog(options)
  onTestFinished(() => opened.log.close())
  return opened
}

/** Opened, given an event, and closed: as one run of a gateway leaves it. */
export async function lived(one: Node): Promise<string[]> {
  const { log } = await openNodeLog(one.options)
  await log.append(stats(1))
  await log.close()
  return [...log.vkeys]
}

export async function rotated(one: Node): Promise<Rotation> {
  const rotation = await rotateNodeLog(one.options, { uid: 'operator|olga', party: 'staff' })
  await rotation.log.close()
  return rotation
}

export const codes = (directory: string, epoch: number): string[] =>
  [...readLog(directory, `${stem}/${epoch}`)].map(({ body }) => joinOf(body)?.code ?? '')

/** Everything that lies in the log and beside it, by its octets. */
export function octets({ options }: Node): Record<string, string> {
  const all = join(options.directory, '..')
  const found = readdirSync(all, { recursive: true, withFileTypes: true })
  return Object.fromEntries(
    found
      .map((entry) => ({ entry, path: join(entry.parentPath, entry.name) }))
      .map(({ entry, path }) => [
        path.slice(all.length),
        entry.isFile() ? readFileSync(path).toString('base64') : 'a directory',
      ])
      .toSorted(([a = ''], [b = '']) => (a < b ? -1 : 1)),
  )
}

/** The first event of a segment happened at another time, in a frame that is whole. */
export function change(path: string): void {
  const bytes = readFileSync(path)
  const at = bytes.indexOf('"time":') + '"time":'.length
  bytes[at] = bytes[at] === 0x31 ? 0x32 : 0x31
  sealFrame(bytes, 0, 0, frameBatch(bytes, 0))
  writeFileSync(path, bytes)
}

export const codeOf = (error: unknown): string =>
  error instanceof AuditError ? error.code : `no AuditError: ${String(error)}`
export const refused = async (one: Node): Promise<string> =>
  await openNodeLog(one.options).then(async ({ log }) => {
    await log.close()
    return 'opened'
  }, codeOf)

export const oldKeys = ['log-ed25519.key.pem', 'log-ml-dsa-44.key.pem']
export const newKeys = ['log-2-ed25519.key.pem', 'log-2-ml-dsa-44.key.pem']

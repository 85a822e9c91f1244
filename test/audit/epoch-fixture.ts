/** Epochs of one log as their writers leave them, and as a forger would: each in a directory of its own. */
import { generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { EventInput } from '#audit'
import { realDisk } from '../../audit/disk.ts'
import { closingEvent, openingEvent, type Closing, type Opening } from '../../audit/epoch.ts'
import { render } from '../../audit/format/render.ts'
import { formatVkey, noteSigner } from '../../audit/note.ts'
import { stats, TextWriter } from './fixture.ts'

const stem = 'sallyport.test/audit/n1'
export const now = 1_800_000_000_000

/** The keys of one epoch, and its name. */
export interface EpochKeys {
  readonly origin: string
  readonly ed25519: KeyObject
  readonly mlDsa44: KeyObject
  readonly vkeys: readonly string[]
}

export function keysOf(epoch: number, of = stem): EpochKeys {
  const origin = `${of}/${epoch}`
  const ed25519 = generateKeyPairSync('ed25519').privateKey
  const mlDsa44 = generateKeyPairSync('ml-dsa-44').privateKey
  const vkeys = [formatVkey(origin, ed25519), formatVkey(origin, mlDsa44)]
  return { origin, ed25519, mlDsa44, vkeys }
}

export const [first, second, third] = [keysOf(1), keysOf(2), keysOf(3)] as const

/** What an epoch ends with when all is well. */
export const ending = (next: EpochKeys): Closing => ({ successor: next.origin, keys: next.vkeys })

/** What an epoch begins with when all is well: the last note of the one in `directory`. */
export const beginning = (before: EpochKeys, directory: string): Opening => ({
  predecessor: before.origin,
  keys: before.vkeys,
  note: readFileSync(join(directory, 'checkpoint'), 'utf8'),
})

/** The log in `directory` under these keys, open. */
export function writerOf(
  directory: string,
  { origin, ed25519, mlDsa44 }: EpochKeys,
  segmentBytes = 1024 * 1024,
): TextWriter {
  const signers = [noteSigner(origin, ed25519), noteSigner(origin, mlDsa44)]
  const one = new TextWriter({ directory, origin, signers, disk: realDisk, segmentBytes })
  one.open()
  return one
}

/** Events as the writer takes them. */
export function textsOf(keys: EpochKeys, events: readonly EventInput[]): string[] {
  const source = { origin: keys.origin, node: 'n1', version: '0.1.0' }
  return events.map((event) => render(event, source, now, randomBytes(10)).head)
}

export interface Epoch {
  readonly opening?: Opening
  readonly events?: number
  /** A head is signed behind these already. */
  readonly signedEarly?: boolean
  readonly closing?: Closing
}

/** Writes one epoch and signs it. */
export function writeEpoch(directory: string, keys: EpochKeys, epoch: Epoch = {}): string {
  const { opening, events = 3, signedEarly = false, closing } = epoch
  const one = writerOf(directory, keys)
  const begin = opening === undefined ? [] : [openingEvent(opening)]
  const rest = Array.from({ length: events }, (_, i) => stats(i))
  one.write(textsOf(keys, [...begin, ...rest]))
  if (signedEarly) one.sign(now)
  if (closing !== undefined) one.write(textsOf(keys, [closingEvent(closing)]))
  one.sign(now)
  one.close()
  return directory
}

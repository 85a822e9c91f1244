/** What the tests of this room share: keys, a clock, a log in a directory of its own. */
import { generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, onTestFinished } from 'vitest'
import { openLog, type AuditLog, type EventInput, type LogOptions } from '#audit'
import { pack } from '../../audit/batch.ts'
import { realDisk, type Disk } from '../../audit/disk.ts'
import { render } from '../../audit/format/render.ts'
import { headerBytes, openFrame, sealFrame } from '../../audit/segment.ts'
import { formatVkey, noteSigner } from '../../audit/note.ts'
import { Writer, type Written } from '../../audit/writer.ts'

export const origin = 'sallyport.test/audit/n1/1'

export const keys: { readonly ed25519: KeyObject; readonly mlDsa44: KeyObject } = {
  ed25519: generateKeyPairSync('ed25519').privateKey,
  mlDsa44: generateKeyPairSync('ml-dsa-44').privateKey,
}
export const vkeys = [formatVkey(origin, keys.ed25519), formatVkey(origin, keys.mlDsa44)]
export const signers = [noteSigner(origin, keys.ed25519), noteSigner(origin, keys.mlDsa44)]

/** A directory that is gone after the test. */
export function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-audit-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A directory that is gone after all tests of the file. */
export function shared(): string {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-audit-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export function logOptions(directory: string, more: Partial<LogOptions> = {}): LogOptions {
  return {
    directory,
    origin,
    signers: keys,
    clock: { now: () => Date.now() },
    random: (n) => randomBytes(n),
    ...more,
  }
}

/** An open log, closed after the test. */
export async function open(
  directory = temporary(),
  more: Partial<LogOptions> = {},
): Promise<AuditLog> {
  const log = await openLog(logOptions(directory, more))
  onTestFinished(() => log.close())
  return log
}

export function stats(n: number, message = 'one minute of traffic'): EventInput {
  return {
    code: 'session.stats',
    message,
    status: 'success',
    session: 's_01j00000000000000000000000',
    data: { bytes_in: n, bytes_out: 2 * n, duration_ms: 60_000 },
  }
}

export const start: EventInput = {
  code: 'session.start',
  message: 'vera@vendor.test opened plc on press-07',
  status: 'success',
  actor: { uid: 'https://idp.test|vera', name: 'vera@vendor.test', party: 'vendor' },
  src: { ip: '192.0.2.7', port: 50_000 },
  device: 'press-07',
  process: 'plc',
  grant: 'g_01j00000000000000000000000',
  session: 's_01j00000000000000000000000',
  decisions: [{ id: 'd_1', revision: 'r1', codes: [] }],
  disposition: 'allowed',
}

/** The same session ends. */
export const end: EventInput = {
  code: 'session.end',
  message: 'closed',
  status: 'success',
  session: start.session,
  reason: 'client_done',
  data: { how: 'close' },
}

/** A writer that takes the texts of its events as tests make them. */
export class TextWriter extends Writer {
  write(heads: readonly string[]): Written {
    const sized = heads.map((head) => ({ head, bytes: Buffer.byteLength(head) + 18 }))
    return this.append(pack(sized, this.size))
  }
}

/** Writes one whole frame into `into` at `offset`, as a forger would, and returns where it ends. */
export function writeFrame(
  into: Buffer,
  offset: number,
  idx: number,
  batch: number,
  body: Uint8Array,
): number {
  into.set(body, offset + headerBytes)
  openFrame(into, offset, body.length)
  return sealFrame(into, offset, idx, batch)
}

/** The writer without its thread, on a disk of the test's choosing. */
export function writer(
  directory: string,
  disk: Disk = realDisk,
  segmentBytes = 1024 * 1024,
): TextWriter {
  return new TextWriter({ directory, origin, signers, disk, segmentBytes })
}

const source = { origin, node: 'n1', version: '0.1.0' }
/** n event texts as the writer takes them; `tag` makes them tell apart. */
export function heads(n: number, tag = ''): string[] {
  return Array.from(
    { length: n },
    (_, i) => render(stats(i, `${tag} ${i}`), source, 1_800_000_000_000, randomBytes(10)).head,
  )
}

/** Resolves when `condition` holds; it is asked again whenever `change` fires. */
export async function until(
  condition: () => boolean,
  poke: (listener: () => void) => () => void,
): Promise<void> {
  if (condition()) return
  await new Promise<void>((resolve) => {
    const stop = poke(() => {
      if (!condition()) return
      stop()
      resolve()
    })
  })
}

/** Asks again after each turn of the event loop; for conditions that nothing announces. */
export async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}

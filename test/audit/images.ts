/**
 * What a power cut leaves of a batch that was written and not synced: any length of the file, and of each sector the new,
 * the old or no content. Used by the tests, and at length by the soak.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { realDisk, type Disk } from '../../audit/disk.ts'

/** The writer's acts that an image needs. */
export interface ImageWriter {
  readonly size: number
  open(): { readonly size: number }
  write(heads: readonly string[]): unknown
  sign(nowMs: number): { readonly size: number } | null
  close(): void
}
export interface ImageMaker {
  readonly writer: (directory: string, disk: Disk) => ImageWriter
  readonly heads: (n: number, tag: string) => string[]
}

const now = 1_800_000_000_000
const sector = 512
const first = 'seg/00000000000000000000.aud'

/** A deterministic stream of numbers below n: a failing image can be made again. */
export function dice(seed: number): (n: number) => number {
  let state = seed
  return (n) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return (state >>> 8) % n
  }
}

/** The images say what is on the disk, so waiting for it proves nothing. */
const unsynced: Disk = {
  ...realDisk,
  fdatasync: () => undefined,
  syncDirectory: () => undefined,
  replace: (path, bytes) => writeFileSync(path, bytes),
}

function tear(before: Buffer, after: Buffer, roll: (n: number) => number): Buffer {
  const length =
    roll(3) === 0 ? before.length + roll(after.length - before.length + 1) : after.length
  const image = Buffer.from(after.subarray(0, length))
  for (let at = Math.floor(before.length / sector) * sector; at < length; at += sector) {
    const end = Math.min(at + sector, length)
    const old = before.subarray(at, Math.min(end, before.length))
    const fate = roll(4)
    if (fate < 2) continue
    image.fill(0, at, end)
    if (fate === 3 && at >= before.length) for (let i = at; i < end; i++) image[i] = roll(256)
    image.set(old, at)
  }
  return image
}

/**
 * Makes the image of `seed`, recovers it, writes on, and recovers again. Throws when that is refused (a false alarm) or
 * when a synced event is gone.
 */
export function tryImage(seed: number, { writer, heads }: ImageMaker): void {
  const roll = dice(seed)
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-image-'))
  const demand = (ok: boolean, what: string): void => {
    if (!ok) throw new Error(`image ${seed}: ${what}`)
  }
  try {
    const one = writer(directory, unsynced)
    one.open()
    for (let i = roll(4); i >= 0; i--) one.write(heads(1 + roll(6), `synced ${seed}`))
    if (roll(2) === 0) one.sign(now)
    const durable = one.size
    const path = join(directory, first)
    const before = readFileSync(path)
    one.write(heads(1 + roll(12), `torn ${seed}`))
    one.close()
    writeFileSync(path, tear(before, readFileSync(path), roll))
    const again = writer(directory, unsynced)
    const { size } = again.open()
    demand(size >= durable, `${size} of ${durable} synced events are left`)
    demand(readFileSync(path).subarray(0, before.length).equals(before), 'synced bytes changed')
    again.write(heads(2, 'on'))
    demand(again.sign(now)?.size === size + 2, 'it does not go on')
    again.close()
    const last = writer(directory, unsynced)
    demand(last.open().size === size + 2, 'what was written on is gone')
    last.close()
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

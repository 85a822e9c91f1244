/**
 * Room kept back: two files of real blocks that are given up bit by bit when the disk is full, so that what ends access,
 * and what operators do about it, can still be recorded. docs/audit.md section "A full disk".
 */
import * as fs from 'node:fs'
import { randomFillSync } from 'node:crypto'
import { join } from 'node:path'
import type { Disk } from './disk.ts'
import type { EventCode, EventInput } from './event.ts'

/** `closeout`: ends of what was admitted, and cuts. `breakglass`: what operators do. */
export type Spend = 'closeout' | 'breakglass'

const ending: ReadonlySet<EventCode> = new Set([
  'session.end',
  // As many as there are logins, and on a full disk only staff begin one.
  'auth.logout',
  'session.kill',
  'session.lock',
  'grant.revoke',
  'grant.burn',
  'grant.expire',
  'cert.revoke',
  'device.quarantine',
  'device.retire',
  'tunnel.down',
  // The last parts come before the end; the recording's own budget bounds how many.
  'recording.part',
  'recording.end',
  'recording.fail',
  // A few a run, one for each head or witness: who fills a disk must not hide that the log was rewritten.
  'finding.witness_conflict',
  'log.close',
  'log.state',
  'log.recovered',
  'log.heartbeat',
  'node.stop',
])
const operating: ReadonlySet<EventCode> = new Set([
  'auth.login',
  'auth.stepup',
  'admin.call',
  'session.unlock',
  'session.watch',
  'session.pause',
  'session.resume',
  'device.resume',
  'policy.upload',
  'policy.activate',
  'policy.rollback',
  'log.prune',
  'sink.change',
  'sink.remove',
  'finding.break_glass',
])
/** Whoever tries to sign in causes these: an attempt that failed is not paid for. */
const signingIn: ReadonlySet<EventCode> = new Set(['auth.login', 'auth.stepup'])
/**
 * What staff set going once and the node then does by itself: a trial of a policy ends, and on the day old events go, which
 * is what makes room where the log itself fills the disk.
 */
const byItself: ReadonlySet<EventCode> = new Set(['policy.rollback', 'log.prune'])
/** What a node writes to come up at all: without it nobody could look. */
const starting: ReadonlySet<EventCode> = new Set(['log.open', 'node.start'])

/** From what an event may be paid on a full disk; null: it is refused, and with it what it was to record. */
export function spendOf(
  event: Pick<EventInput, 'code' | 'actor' | 'status' | 'reason' | 'disposition'>,
): Spend | null {
  if (ending.has(event.code)) return 'closeout'
  // Of an extension that was taken back: its grant ends sooner.
  if (event.code === 'grant.extend' && event.disposition === 'revoked') return 'closeout'
  if (starting.has(event.code)) return 'breakglass'
  if (byItself.has(event.code) && event.actor === undefined) return 'breakglass'
  // Vendors, and whoever knows an operator's name, could spend what operators need.
  if (!operating.has(event.code) || event.actor?.party !== 'staff') return null
  // Refused: anybody on the staff may ask for what no role lets them do, as often as they like.
  if (event.code === 'admin.call' && event.status !== 'success') return null
  // The password was right, and the passkey is still asked for.
  const onTheWay = event.reason === 'second_factor'
  const failed = event.status !== 'success' && !onTheWay
  return signingIn.has(event.code) && failed ? null : 'breakglass'
}

export interface ReserveSizes {
  readonly closeoutBytes: number
  readonly breakglassBytes: number
}

const folder = 'reserve'
const files: Readonly<Record<Spend, string>> = {
  closeout: 'closeout.bin',
  breakglass: 'breakglass.bin',
}
/** Given up at a time: an end has a few KiB, and a head over it. */
const stepBytes = 1024 * 1024
/** Filled at a time, so that no batch waits long behind it. */
const fillBytes = 8 * 1024 * 1024

/** How much is kept back there at this moment: as limits of a log that keeps no more. */
export function reserveIn(directory: string): ReserveSizes {
  const bytes = (spend: Spend): number =>
    fs.statSync(join(directory, folder, files[spend]), { throwIfNoEntry: false })?.size ?? 0
  return { closeoutBytes: bytes('closeout'), breakglassBytes: bytes('breakglass') }
}

/** Gives all of it back for good: nothing more is written to a log that ended. */
export function removeReserve(directory: string): void {
  fs.rmSync(join(directory, folder), { recursive: true, force: true })
}

/** Hands all of it over to the log in `to`, which goes on from the one in `from`: at no moment is nothing kept back. */
export function moveReserve(from: string, to: string): void {
  const [own, next] = [join(from, folder), join(to, folder)]
  if (!fs.existsSync(own)) return
  fs.mkdirSync(to, { recursive: true, mode: 0o700 })
  fs.rmSync(next, { recursive: true, force: true })
  fs.renameSync(own, next)
}

export class Reserve {
  readonly #directory: string
  readonly #disk: Disk
  readonly #sizes: Readonly<Record<Spend, number>>

  constructor(directory: string, disk: Disk, sizes: ReserveSizes) {
    this.#directory = directory
    this.#disk = disk
    this.#sizes = { closeout: sizes.closeoutBytes, breakglass: sizes.breakglassBytes }
  }

  /** Bytes that are still kept back. */
  left(spend: Spend): number {
    return fs.statSync(this.#path(spend), { throwIfNoEntry: false })?.size ?? 0
  }

  /** Bytes that are missing from what was wanted. */
  get missing(): number {
    return (['closeout', 'breakglass'] as const).reduce(
      (sum, spend) => sum + Math.max(0, this.#sizes[spend] - this.left(spend)),
      0,
    )
  }

  /** Gives up at least `bytes` where there are as many; an end may take what operators have left. Gives how many it were. */
  release(spend: Spend, bytes: number): number {
    const from = spend === 'closeout' ? (['closeout', 'breakglass'] as const) : [spend]
    const wanted = Math.max(stepBytes, bytes)
    let given = 0
    for (const file of from) {
      const left = this.left(file)
      const take = Math.min(left, wanted - given)
      if (take === 0) continue
      this.#disk.truncate(this.#path(file), left - take)
      given += take
      if (given >= wanted) break
    }
    return given
  }

  /**
   * Fills up by a step, while the disk keeps `floor()` bytes free beside it: asked again before every MiB, because what
   * is promised to others changes while it is filled. Gives how much was written.
   */
  fill(floor: () => number): number {
    for (const spend of ['closeout', 'breakglass'] as const) {
      const left = this.left(spend)
      const step = Math.min(fillBytes, this.#sizes[spend] - left)
      if (step > 0) return this.#grow(spend, left, step, floor)
    }
    return 0
  }

  #grow(spend: Spend, from: number, bytes: number, floor: () => number): number {
    const fits = (rest: number): boolean => this.#disk.freeBytes(this.#directory) - rest >= floor()
    if (!fits(bytes)) return 0
    fs.mkdirSync(join(this.#directory, folder), { recursive: true, mode: 0o700 })
    const fd = this.#disk.openAppend(this.#path(spend))
    try {
      // Random: a file system that compresses or leaves holes for zeros would keep back nothing.
      const chunk = randomFillSync(Buffer.alloc(Math.min(bytes, stepBytes)))
      let done = 0
      while (done < bytes && (done === 0 || fits(bytes - done))) {
        const part = chunk.subarray(0, Math.min(chunk.length, bytes - done))
        for (let at = 0; at < part.length;)
          at += this.#disk.pwrite(fd, part.subarray(at), from + done + at)
        done += part.length
      }
      this.#disk.fdatasync(fd)
      return done
    } finally {
      this.#disk.close(fd)
    }
  }

  #path(spend: Spend): string {
    return join(this.#directory, folder, files[spend])
  }
}

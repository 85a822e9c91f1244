/**
 * The owner's switch. While a file called `island` is in the data directory the device is cut off: no
 * connection to any gateway, no stream, no renewal. A gateway has no message for it; who may write that
 * directory decides. What cannot be looked at counts as cut off.
 */
import { lstatSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { syncDirectory } from '#boot'
import type { Clock } from '#tunnel'
import { AgentError, messageOf } from './errors.ts'
import { readIfPresent, writeDurably } from './files.ts'
import type { Log } from './log.ts'

const FILE = 'island'
/** A file that somebody laid there by hand is seen within this time; the command and the signal do not wait. */
const LOOK_MS = 500
const MAX_REASON = 200

/** What the owner wrote; all null where the file was laid by hand. */
export interface IslandNote {
  readonly since: string | null
  readonly reason: string | null
}

/** Whether the device is cut off, by the file alone: an agent need not run. */
function isIsland(dataDir: string): boolean {
  try {
    lstatSync(join(dataDir, FILE))
    return true
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ENOENT')
  }
}

/** Throws AgentError `agent.island` where the device is cut off. */
export function assertNoIsland(dataDir: string): void {
  if (!isIsland(dataDir)) return
  throw new AgentError(
    'agent.island',
    'The owner of this device has cut it off: it dials nobody.',
    'See `sallyport agent island status`; lift it with `sallyport agent island off`.',
  )
}

/** What stands in the file; undefined where there is none. */
export function readIsland(dataDir: string): IslandNote | undefined {
  if (!isIsland(dataDir)) return undefined
  try {
    const note = JSON.parse(readIfPresent(join(dataDir, FILE)) ?? '') as Partial<IslandNote>
    return { since: note.since ?? null, reason: note.reason ?? null }
  } catch {
    return { since: null, reason: null }
  }
}

/** Cuts the device off, durably; `reason` to 200 characters. Throws AgentError `data.unwritable`. */
export function layIsland(dataDir: string, reason: string | undefined, since: string): void {
  const note = { since, reason: reason?.slice(0, MAX_REASON) ?? null }
  writeDurably(join(dataDir, FILE), `${JSON.stringify(note)}\n`)
}

/** Lifts it, durably; nothing to do where there is no file. Throws AgentError `data.unwritable`. */
export function liftIsland(dataDir: string): void {
  const path = join(dataDir, FILE)
  try {
    rmSync(path, { force: true, recursive: true })
    syncDirectory(dataDir)
  } catch (error) {
    throw new AgentError(
      'data.unwritable',
      `${path} could not be removed: ${messageOf(error)}.`,
      'Lift it as the user of the agent, or as root.',
      { cause: error },
    )
  }
}

/** Watches the switch while an agent runs. */
export class Island implements Disposable {
  readonly #dataDir: string
  readonly #clock: Clock
  readonly #log: Log
  readonly #waiting = new Set<() => void>()
  #on: boolean
  #held = false
  #cancel: () => void = () => {}
  #disposed = false

  constructor(dataDir: string, clock: Clock, log: Log) {
    this.#dataDir = dataDir
    this.#clock = clock
    this.#log = log
    this.#on = isIsland(dataDir)
    if (this.#on) this.#tell()
    this.#wait()
  }

  get on(): boolean {
    return this.#on
  }

  /** Looks now. */
  look(): void {
    const on = this.#held || isIsland(this.#dataDir)
    if (on === this.#on) return
    this.#on = on
    this.#tell()
    for (const wake of this.#waiting) wake()
  }

  /**
   * Cuts at once, by the owner's signal. Where the file that keeps it cut cannot be written it is cut all
   * the same, until this agent ends.
   */
  cut(since: string): void {
    if (this.#on) return
    try {
      layIsland(this.#dataDir, 'signal', since)
    } catch (error) {
      this.#held = true
      this.#log('error', 'island.unwritten', { reason: messageOf(error) })
    }
    this.look()
  }

  /** Resolves as soon as the switch stands as `on`, or the signal is aborted. */
  async until(on: boolean, signal: AbortSignal): Promise<void> {
    while (this.#on !== on && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting.add(resolve)
      signal.addEventListener('abort', () => resolve(), { once: true })
      await promise
      this.#waiting.delete(resolve)
    }
  }

  [Symbol.dispose](): void {
    this.#disposed = true
    this.#cancel()
  }

  #wait(): void {
    this.#cancel = this.#clock.after(LOOK_MS, () => {
      if (this.#disposed) return
      this.look()
      this.#wait()
    })
  }

  #tell(): void {
    const { since = null, reason = null } = readIsland(this.#dataDir) ?? {}
    if (this.#on) this.#log('warn', 'island.on', { since, reason })
    else this.#log('warn', 'island.off')
  }
}

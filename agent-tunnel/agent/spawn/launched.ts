/**
 * Whether the launcher has become the program: it says when it is about to, and the kernel says when the
 * process no longer runs the launcher's own file, but the one that was hashed or what that has become since.
 * One that ends before it could be seen has been it as well.
 */
import type { ChildProcess } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { Refused } from '../ask.ts'
import { readRecord } from '../json.ts'
import { identify } from '../scope/executable.ts'
import { childrenOf } from './children.ts'
import { GOING } from './spec.ts'
import type { LaunchSpec } from './spec.ts'

const MAX_SAYS = 1024
const LAUNCH_MS = 15_000
const POLL_MS = [1, 2, 5, 10, 20] as const

/**
 * Tells the launcher what to do and waits until the program, whose file has the identity `id`, runs.
 * Rejects with Refused `spawn.failed`.
 */
export async function launched(child: ChildProcess, spec: LaunchSpec, id: string): Promise<void> {
  const launcher = new Launcher(child)
  launcher.tell(spec)
  const ends = performance.now() + LAUNCH_MS
  for (let look = 0; ; look++) {
    const why = launcher.failure()
    if (why !== undefined) throw new Refused('spawn.failed', `the program was not started: ${why}`)
    if (launcher.ended) return
    if (launcher.going && (await runs(child.pid, id))) return
    if (performance.now() > ends)
      throw new Refused('spawn.failed', 'the program was not started in time')
    await sleep(POLL_MS[Math.min(look, POLL_MS.length - 1)])
  }
}

class Launcher {
  readonly #control: (Writable & Readable) | undefined
  #says = ''
  #complains = ''
  #exited = false
  #silent = 2

  constructor(child: ChildProcess) {
    this.#control = (child.stdio[4] as (Writable & Readable) | null) ?? undefined
    child.once('error', (error) => {
      this.#complains = `nsenter: ${error.message}`
      this.#exited = true
      this.#silent = 0
    })
    child.once('exit', () => (this.#exited = true))
    const silent = () => void this.#silent--
    this.#control
      ?.on('error', () => {})
      .on('data', (text: Buffer) => (this.#says = kept(this.#says, text)))
      .once('close', silent)
    child.stderr
      ?.on('data', (text: Buffer) => (this.#complains = kept(this.#complains, text)))
      .once('close', silent)
  }

  tell(spec: LaunchSpec): void {
    this.#control?.end(JSON.stringify(spec))
  }

  /** It is about to become the program. */
  get going(): boolean {
    return this.#says.startsWith(GOING)
  }
  /** It has ended, and all that it said is here. */
  get ended(): boolean {
    return this.#exited && this.#silent <= 0
  }

  failure(): string | undefined {
    const said = readRecord(Buffer.from(this.going ? this.#says.slice(GOING.length) : this.#says))
    if (said !== undefined) return `${String(said['step'])}: ${String(said['why'])}`
    // It did not come to the launcher: what should have entered the sandbox says why.
    return this.ended && !this.going ? this.#complains.trim() || 'it ended' : undefined
  }
}

function kept(before: string, text: Buffer): string {
  return (before + text.toString('utf8')).slice(0, MAX_SAYS)
}

/**
 * Whether a child of `parent` runs the file, or what the file has become since: the launcher executes
 * nothing else, so whoever no longer runs the launcher's own executable was the program.
 */
async function runs(parent: number | undefined, id: string): Promise<boolean> {
  const launcher = await identify(process.execPath)
  for (const pid of childrenOf(parent ?? 0)) {
    const now = await identify(`/proc/${pid}/exe`)
    if (now === id || (now !== null && launcher !== null && now !== launcher)) return true
  }
  return false
}

/**
 * Where a spawned program lives and cannot outlive its session: a PID namespace of its own, with an IPC
 * namespace and a /proc to match. Its first process waits for the end of a pipe from the agent. When
 * that ends, however the agent ends, the kernel kills everything in it. pid_namespaces(7), unshare(1).
 */
import { spawn } from 'node:child_process'
import type { ChildProcessByStdio } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, realpathSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { Refused } from '../ask.ts'
import { messageOf } from '../errors.ts'
import { childrenOf } from './children.ts'

const READY_MS = 5000
/** Killing what is left takes the kernel milliseconds; after this the rest is forced. */
const END_MS = 2000
const GONE_POLL_MS = 10
const MAX_SAYS = 512
// SIGCHLD is ignored by whoever adopts what was left behind, so that the kernel reaps it.
const WAIT = "trap '' CHLD; echo ready; exec cat >/dev/null"
// Over it lies an empty one. Inside it cannot be taken away: what lives there has no right over mounts, and
// in a namespace of its own the mounts of this one are locked. mount_namespaces(7).
const HIDE = 'mount -t tmpfs -o ro,nosuid,nodev,noexec,mode=0555,size=4k none "$1" || exit; shift; '
export const TOOLS_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export class Sandbox {
  readonly #anchor: ChildProcessByStdio<Writable, Readable, Readable>
  readonly #own: boolean
  readonly #first: FirstProcess
  readonly #gone: Promise<void>

  private constructor(
    anchor: ChildProcessByStdio<Writable, Readable, Readable>,
    own: boolean,
    first: FirstProcess,
  ) {
    this.#anchor = anchor
    this.#own = own
    this.#first = first
    this.#gone = this.#empty()
  }

  /**
   * Makes one for a program that runs as `uid`. For the agent's own user it is in a user namespace as
   * well, where no privilege is needed, and `dataDir`, which that user owns, is an empty directory inside.
   * Rejects with Refused `spawn.unavailable`; for the agent's own user without a `dataDir` too.
   */
  static async make(uid: number, dataDir: string | undefined): Promise<Sandbox> {
    const own = uid === process.getuid?.()
    const hidden = own ? [hiddenOf(dataDir)] : []
    const user = own ? ['--user', '--map-current-user', '--keep-caps'] : []
    const anchor = spawn(
      'unshare',
      [
        ...user,
        '--pid',
        '--ipc',
        '--mount',
        '--fork',
        '--kill-child',
        '--mount-proc',
        'sh',
        '-c',
        own ? HIDE + WAIT : WAIT,
        'sh',
        ...hidden,
      ],
      { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: TOOLS_PATH }, cwd: '/' },
    )
    anchor.stdin.on('error', () => {})
    try {
      await ready(anchor)
      return new Sandbox(anchor, own, firstOf(anchor.pid ?? 0))
    } catch (error) {
      anchor.stdin.destroy()
      anchor.kill('SIGKILL')
      throw error
    }
  }

  get #ended(): boolean {
    return this.#anchor.exitCode !== null || this.#anchor.signalCode !== null
  }

  /** The command that runs `command` inside, and ends as it ends. Throws Refused where nothing is to be entered any more. */
  enter(command: readonly string[]): { readonly file: string; readonly args: readonly string[] } {
    // Its number may be somebody else's by now.
    if (this.#ended) throw unavailable('it has ended already')
    const at = `/proc/${this.#anchor.pid}/ns`
    const user = this.#own ? [`--user=${at}/user`, '--preserve-credentials'] : []
    const spaces = [`--pid=${at}/pid_for_children`, `--mount=${at}/mnt`, `--ipc=${at}/ipc`]
    return { file: 'nsenter', args: [...user, ...spaces, '--', ...command] }
  }

  /**
   * Enters it once, by a program that does nothing. Rejects with Refused `spawn.unavailable`: the right to
   * make a namespace is not the right to enter it.
   */
  async tryEntering(): Promise<void> {
    const { file, args } = this.enter(['true'])
    const tried = spawn(file, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: TOOLS_PATH },
      cwd: '/',
      timeout: READY_MS,
      killSignal: 'SIGKILL',
    })
    let says = ''
    tried.stderr.setEncoding('utf8').on('data', (text: string) => {
      says = (says + text).slice(0, MAX_SAYS)
    })
    const { promise, resolve } = Promise.withResolvers<string | undefined>()
    tried.once('error', (error) => resolve(error.message))
    tried.once('close', (code) => resolve(code === 0 ? undefined : says.trim() || 'nsenter ended'))
    const why = await promise
    if (why !== undefined) throw unavailable(`it cannot be entered: ${why}`)
  }

  /** Kills everything in it; resolves when there is nothing left. Idempotent. */
  async end(): Promise<void> {
    this.#anchor.stdin.destroy()
    const force = setTimeout(() => this.kill(), END_MS)
    await this.#gone
    clearTimeout(force)
  }

  /**
   * Kills everything in it now, by its first process: `unshare` itself only waits for that one, and were it
   * killed, its end would say nothing of what is left.
   */
  kill(): void {
    this.#anchor.stdin.destroy()
    // Until unshare has ended nobody else has that number.
    if (this.#ended) return
    try {
      process.kill(this.#first.pid, 'SIGKILL')
    } catch {
      this.#anchor.kill('SIGKILL')
    }
  }

  /** The first process is the last to go: the kernel has it wait for all others. pid_namespaces(7). */
  async #empty(): Promise<void> {
    if (!this.#ended) await once(this.#anchor, 'exit')
    // unshare waits for it, unless somebody killed unshare.
    while (isAlive(this.#first)) await sleep(GONE_POLL_MS)
  }
}

/** The first process of a sandbox, and when it was started, as the kernel counts. */
interface FirstProcess {
  readonly pid: number
  readonly started: string
}

/** The child of `unshare`, which inside is process 1. */
function firstOf(parent: number): FirstProcess {
  const [pid] = childrenOf(parent).map(Number)
  const started = pid === undefined ? undefined : statOf(pid)?.started
  if (pid === undefined || started === undefined) throw unavailable('its first process is not seen')
  return { pid, started }
}

function isAlive({ pid, started }: FirstProcess): boolean {
  const now = statOf(pid)
  // A zombie is one that has waited for all others already.
  return now !== undefined && now.started === started && !['Z', 'X'].includes(now.state)
}

/** proc_pid_stat(5): fields 3 and 22. */
function statOf(pid: number): { readonly state: string; readonly started: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { state: fields[0] ?? '', started: fields[19] ?? '' }
  } catch {
    return undefined
  }
}

/** The directory itself: a mount on a link would be one on what it leads to. */
function hiddenOf(dataDir: string | undefined): string {
  try {
    if (dataDir !== undefined) return realpathSync(dataDir)
  } catch (error) {
    throw unavailable(`the agent's data directory cannot be hidden: ${messageOf(error)}`)
  }
  throw unavailable("the agent's data directory, which its own user may read, is not known")
}

function unavailable(why: string): Refused {
  return new Refused(
    'spawn.unavailable',
    `no namespace that ends with the session can be had here: ${why}`,
  )
}

async function ready(anchor: ChildProcessByStdio<Writable, Readable, Readable>): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let says = ''
  const refuse = (why: string) => reject(unavailable(why))
  anchor.stderr.setEncoding('utf8').on('data', (text: string) => {
    says = (says + text).slice(0, MAX_SAYS)
  })
  anchor.once('error', (error) => refuse(`unshare: ${error.message}`))
  anchor.once('close', () => refuse(says.trim() || 'unshare ended'))
  anchor.stdout.once('data', () => resolve())
  const late = setTimeout(() => refuse('unshare did not come up in time'), READY_MS)
  try {
    await promise
  } finally {
    clearTimeout(late)
  }
}

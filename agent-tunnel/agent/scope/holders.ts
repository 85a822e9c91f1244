/**
 * Which processes hold given sockets open: /proc/PID/fd of every process, read once for all sockets
 * asked about. Another user's takes CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE; a process that may not be
 * read is counted, not assumed innocent.
 */
import { opendirSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { shareDescriptors } from './libc.ts'
import { parseSocketLink, parseStartTicks } from './procfs.ts'

/** A process at one moment of its life: the pid alone may be given out again. */
export interface Holder {
  readonly pid: number
  readonly startTicks: number
  /** Below /proc, the task whose table of descriptors it is: `PID`, or `PID/task/TID`. */
  readonly task: string
  /** The descriptors by which it holds the sockets asked about. */
  readonly sockets: readonly { readonly fd: string; readonly inode: number }[]
}

export interface Holders {
  readonly holders: readonly Holder[]
  /** Processes whose descriptors may not be read. */
  readonly unreadable: number
}

/** Looks are synchronous (per descriptor that is far cheaper) in slices no longer than this. */
const SLICE_MS = 1

/** A long synchronous look lets others run when its slice is used up. */
export class Slice {
  #ends = performance.now() + SLICE_MS

  get over(): boolean {
    return performance.now() >= this.#ends
  }

  async turn(): Promise<void> {
    if (!this.over) return
    await turn()
    this.#ends = performance.now() + SLICE_MS
  }
}

/** Every visible process that holds one of `inodes`. `proc` is the mount point of procfs. */
export async function findHolders(proc: string, inodes: ReadonlySet<number>): Promise<Holders> {
  const holders: Holder[] = []
  let unreadable = 0
  const slice = new Slice()
  for (const name of readdirSync(proc)) {
    if (!/^\d+$/.test(name)) continue
    let found = await socketsOf(proc, name, inodes, slice)
    if (found !== 'unreadable' && found.sockets.length === 0)
      found = await socketsOfThreads(proc, name, inodes, slice)
    if (found === 'unreadable') unreadable++
    else if (found.sockets.length > 0) {
      const startTicks = startTicksOf(proc, Number(name))
      if (startTicks !== undefined) holders.push({ pid: Number(name), startTicks, ...found })
    }
    await slice.turn()
  }
  return { holders, unreadable }
}

/**
 * The holders among `pids` and their children: where somebody was found before. Says nothing of other
 * processes. Stops at `MAX_FIRST_DESCRIPTORS`, which then is no first look any more.
 */
export function holdersAmong(
  proc: string,
  pids: readonly number[],
  inodes: ReadonlySet<number>,
): readonly Holder[] {
  const holders: Holder[] = []
  let left = MAX_FIRST_DESCRIPTORS
  for (const pid of new Set(pids.flatMap((one) => [one, ...childrenOf(proc, one)]))) {
    const socket = firstSocket(`${proc}/${pid}`, inodes, left)
    if (socket.read > left) return []
    left -= socket.read
    if (socket.found === undefined) continue
    const startTicks = startTicksOf(proc, pid)
    if (startTicks !== undefined)
      holders.push({ pid, startTicks, task: String(pid), sockets: [socket.found] })
  }
  return holders
}

const MAX_FIRST_DESCRIPTORS = 256

/** A kernel without CONFIG_PROC_CHILDREN tells none; they are found among all processes then. */
function childrenOf(proc: string, pid: number): readonly number[] {
  try {
    const text = readFileSync(`${proc}/${pid}/task/${pid}/children`, 'latin1')
    return text.split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

/** The newest descriptor of one of `inodes`. `read` is how many were looked at, `most` + 1 at most. */
function firstSocket(
  directory: string,
  inodes: ReadonlySet<number>,
  most: number,
): { readonly read: number; readonly found?: Holder['sockets'][number] } {
  let read = 0
  try {
    if (isLong(`${directory}/fd`)) return { read: most + 1 }
    // New connections have high numbers as a rule.
    for (const fd of readdirSync(`${directory}/fd`).toReversed()) {
      if (++read > most) break
      const inode = inodeOf(`${directory}/fd/${fd}`)
      if (inode !== undefined && inodes.has(inode)) return { read, found: { fd, inode } }
    }
  } catch {
    // It may not be read, or ended: not a first place.
  }
  return { read }
}

/** What one table of descriptors holds of the sockets asked about. */
type Held = Pick<Holder, 'task' | 'sockets'>

/** So many descriptors are read at once: reading a table of a million takes the kernel a second. */
const AT_ONCE = 1024

/** Whether a table of descriptors is too long to be read at once; kernels before 6.2 do not tell. */
function isLong(directory: string): boolean {
  return statSync(directory).size > AT_ONCE
}

/** The names in a table of descriptors, in parts where it is long. */
function* descriptorsOf(directory: string): Generator<string> {
  if (!isLong(directory)) return yield* readdirSync(directory)
  const table = opendirSync(directory, { bufferSize: AT_ONCE })
  try {
    for (let entry = table.readSync(); entry !== null; entry = table.readSync()) yield entry.name
  } finally {
    table.closeSync()
  }
}

/** Which of `inodes` a task's table of descriptors holds. `task` as in `Holder`. */
export async function socketsOf(
  proc: string,
  task: string,
  inodes: ReadonlySet<number>,
  slice: Slice,
): Promise<Held | 'unreadable'> {
  const sockets: { fd: string; inode: number }[] = []
  const directory = `${proc}/${task}/fd`
  try {
    for (const fd of descriptorsOf(directory)) {
      const inode = inodeOf(`${directory}/${fd}`)
      if (inode !== undefined && inodes.has(inode)) sockets.push({ fd, inode })
      // Anybody may have a million: what else the agent does must not wait for them.
      if (slice.over) await slice.turn()
    }
  } catch (error) {
    if (isForbidden(error)) return 'unreadable'
    // It ended meanwhile.
  }
  return { task, sockets }
}

/**
 * The same of threads that have a table of their own (`unshare(CLONE_FILES)`), or whose first thread
 * has ended: /proc/PID/fd is the first thread's. Threads that share its table are passed over.
 */
async function socketsOfThreads(
  proc: string,
  pid: string,
  inodes: ReadonlySet<number>,
  slice: Slice,
): Promise<Held | 'unreadable'> {
  const directory = `${proc}/${pid}/task`
  const nothing: Held = { task: pid, sockets: [] }
  try {
    // Two links of its own, and one for each thread.
    if (statSync(directory).nlink <= 3) return nothing
    for (const thread of readdirSync(directory)) {
      if (slice.over) await slice.turn()
      if (thread === pid || shareDescriptors(Number(pid), Number(thread)) === true) continue
      const found = await socketsOf(proc, `${pid}/task/${thread}`, inodes, slice)
      if (found === 'unreadable' || found.sockets.length > 0) return found
    }
  } catch {
    // It ended meanwhile.
  }
  return nothing
}

/** The directory wants CAP_DAC_READ_SEARCH, the links in it CAP_SYS_PTRACE: either may be missing. */
function isForbidden(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'EACCES' || code === 'EPERM'
}

/** Undefined: not a socket, or closed meanwhile. Throws when the link may not be read. */
function inodeOf(link: string): number | undefined {
  try {
    return parseSocketLink(readlinkSync(link))
  } catch (error) {
    if (isForbidden(error)) throw error
    return undefined
  }
}

/** The start time of `pid` in ticks since boot; undefined when it has ended. */
export function startTicksOf(proc: string, pid: number): number | undefined {
  try {
    return parseStartTicks(readFileSync(`${proc}/${pid}/stat`, 'latin1'))
  } catch {
    return undefined
  }
}

/** Whether a holder still holds the same sockets by the same descriptors. */
export function holdsSockets(proc: string, { task, sockets }: Holder): boolean {
  try {
    return sockets.every(({ fd, inode }) => inodeOf(`${proc}/${task}/fd/${fd}`) === inode)
  } catch {
    return false
  }
}

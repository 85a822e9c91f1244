/**
 * Which processes hold given sockets open: /proc/PID/fd of every process, read once for all sockets
 * asked about. Reading another process's fd directory needs the same uid or CAP_SYS_PTRACE; a
 * process that may not be read is counted, not assumed innocent.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { parseSocketLink, parseStartTicks } from './procfs.ts'

/** A process at one moment of its life: the pid alone may be given out again. */
export interface Holder {
  readonly pid: number
  readonly startTicks: number
  /** The descriptors by which it holds the sockets asked about. */
  readonly sockets: readonly { readonly fd: string; readonly inode: number }[]
}

export interface Holders {
  readonly holders: readonly Holder[]
  /** Processes whose descriptors may not be read. */
  readonly unreadable: number
}

/** The scan is synchronous (per descriptor that is far cheaper) in slices no longer than this. */
const SLICE_MS = 4

/** Every visible process that holds one of `inodes`. `proc` is the mount point of procfs. */
export async function findHolders(proc: string, inodes: ReadonlySet<number>): Promise<Holders> {
  const holders: Holder[] = []
  let unreadable = 0
  let sliceEnds = performance.now() + SLICE_MS
  for (const name of readdirSync(proc)) {
    if (!/^\d+$/.test(name)) continue
    const found = socketsOf(`${proc}/${name}`, inodes)
    if (found === 'unreadable') unreadable++
    else if (found.length > 0) {
      const startTicks = startTicksOf(proc, Number(name))
      if (startTicks !== undefined) holders.push({ pid: Number(name), startTicks, sockets: found })
    }
    if (performance.now() > sliceEnds) {
      await turn()
      sliceEnds = performance.now() + SLICE_MS
    }
  }
  return { holders, unreadable }
}

function socketsOf(
  directory: string,
  inodes: ReadonlySet<number>,
): Holder['sockets'] | 'unreadable' {
  let names: string[]
  try {
    names = readdirSync(`${directory}/fd`)
  } catch (error) {
    // ENOENT, ESRCH: it ended meanwhile. EACCES, EPERM: it may not be read.
    const code = (error as NodeJS.ErrnoException).code
    return code === 'EACCES' || code === 'EPERM' ? 'unreadable' : []
  }
  const sockets: { fd: string; inode: number }[] = []
  for (const fd of names) {
    const inode = inodeOf(`${directory}/fd/${fd}`)
    if (inode !== undefined && inodes.has(inode)) sockets.push({ fd, inode })
  }
  return sockets
}

function inodeOf(link: string): number | undefined {
  try {
    return parseSocketLink(readlinkSync(link))
  } catch {
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

/** Whether the same process still holds the same sockets by the same descriptors. A few system calls. */
export function stillHolds(proc: string, holder: Holder): boolean {
  if (startTicksOf(proc, holder.pid) !== holder.startTicks) return false
  return holder.sockets.every(
    ({ fd, inode }) => inodeOf(`${proc}/${holder.pid}/fd/${fd}`) === inode,
  )
}

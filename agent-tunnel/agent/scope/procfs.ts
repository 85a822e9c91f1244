/**
 * The kernel's text files as values: text in, rows out, no file is opened here. Formats: proc(5),
 * proc_pid_stat(5), proc_pid_net(5), cgroups(7). A line that does not have the documented form is
 * left out; a file that does not gives undefined. Nothing is guessed from half a line. Only a line feed
 * ends a line: names that anybody chooses hold whatever else a reader of lines might stop at.
 */
import { fromOctets } from './address.ts'
import type { Endpoint } from './address.ts'

/** TCP states the scope asks about (include/net/tcp_states.h). */
export const TCP_LISTEN = 0x0a
export const TCP_SYN_SENT = 0x02

/** One row of /proc/net/tcp or tcp6. `inode` 0: no file stands for the socket (not accepted yet, or closed). */
export interface SocketRow {
  readonly local: Endpoint
  readonly remote: Endpoint
  readonly state: number
  readonly uid: number
  readonly inode: number
}

/** Byte order of the machine that wrote the table: addresses are printed as 32-bit words. */
export type ByteOrder = 'LE' | 'BE'

const ROW =
  /^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{2}) \S+ \S+ \S+ +(\d+) +\d+ (\d+)/

/** The rows of /proc/net/tcp or /proc/net/tcp6; the heading and malformed lines are left out. */
export function parseSocketTable(text: string, order: ByteOrder = 'LE'): SocketRow[] {
  const rows: SocketRow[] = []
  for (const line of text.split('\n')) {
    const row = parseSocketRow(line, order)
    if (row !== undefined) rows.push(row)
  }
  return rows
}

function parseSocketRow(line: string, order: ByteOrder): SocketRow | undefined {
  const [, local, localPort, remote, remotePort, state, uid, inode] = ROW.exec(line) ?? []
  if (local === undefined || localPort === undefined || remote === undefined) return undefined
  if (remotePort === undefined || state === undefined || inode === undefined) return undefined
  return {
    local: { address: addressOf(local, order), port: Number.parseInt(localPort, 16) },
    remote: { address: addressOf(remote, order), port: Number.parseInt(remotePort, 16) },
    state: Number.parseInt(state, 16),
    uid: Number(uid),
    inode: Number(inode),
  }
}

function addressOf(hex: string, order: ByteOrder): string {
  const octets = new Uint8Array(hex.length / 2)
  for (let word = 0; word < octets.length; word += 4) {
    for (let at = 0; at < 4; at++) {
      const from = (word + (order === 'LE' ? 3 - at : at)) * 2
      octets[word + at] = Number.parseInt(hex.slice(from, from + 2), 16)
    }
  }
  return fromOctets(octets)
}

/** The inode in a link of /proc/PID/fd (`socket:[4711]`), or undefined when it is not a socket. */
export function parseSocketLink(link: string): number | undefined {
  const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1]
  return inode === undefined ? undefined : Number(inode)
}

/**
 * The start time in clock ticks since boot from /proc/PID/stat (field 22): with the pid it names one
 * process, where the pid alone may have been given out again. The second field is the program's own
 * choice of text and may hold spaces and parentheses, so fields are counted from the last one.
 */
export function parseStartTicks(stat: string): number | undefined {
  const close = stat.lastIndexOf(')')
  if (close < 0) return undefined
  const field = stat.slice(close + 2).split(' ')[19]
  return field !== undefined && /^\d+$/.test(field) ? Number(field) : undefined
}

/** The first line that has `form`, which is without `m`: that would begin and end one at `\r`, too. */
function lineOf(text: string, form: RegExp): RegExpExecArray | undefined {
  for (const line of text.split('\n')) {
    const found = form.exec(line)
    if (found !== null) return found
  }
  return undefined
}

/** Boot time in epoch seconds from /proc/stat. */
export function parseBootTime(stat: string): number | undefined {
  const seconds = lineOf(stat, /^btime (\d+)$/)?.[1]
  return seconds === undefined ? undefined : Number(seconds)
}

/**
 * The uid from /proc/PID/status, when real, effective, saved and file system uid are the same one.
 * A process that can still change sides (set-uid, a daemon that only lowered its effective uid) has
 * no single uid to report.
 */
export function parseUid(status: string): number | undefined {
  // The name of the program comes before it, as the process has set it: the kernel escapes its line feeds alone.
  const ids = lineOf(status, /^Uid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$/)
  if (ids === undefined) return undefined
  const [, real, ...rest] = ids
  return rest.every((id) => id === real) ? Number(real) : undefined
}

/**
 * The control group that systemd has a process in, from /proc/PID/cgroup: of its own hierarchy, else of the unified one. Who
 * is at the top of its own is in none there; only root moves others, in either. The kernel refuses a line feed in the name of a
 * group, and nothing else.
 */
export function parseGroup(cgroup: string): string | undefined {
  const paths = [/^\d+:name=systemd:(\/.*)$/s, /^0::(\/.*)$/s].flatMap(
    (form) => lineOf(cgroup, form)?.[1] ?? [],
  )
  return paths.find((path) => path !== '/') ?? paths[0]
}

const UNIT = /^[A-Za-z0-9:_.\\@-]{1,255}\.(?:service|scope|socket|mount|swap)$/

/**
 * The systemd *system* unit from /proc/PID/cgroup: the first component below the slices, as systemd
 * itself reads it. Deeper components are not looked at: whoever owns a delegated subtree (a user's
 * own manager, a container) may name them as they please, `plc.service` included.
 */
export function parseUnit(cgroup: string): string | undefined {
  const unit = parseGroup(cgroup)
    ?.slice(1)
    .split('/')
    .find((part) => !part.endsWith('.slice'))
  // systemd writes "_" before a name that would collide with a kernel file of the cgroup.
  const bare = unit?.startsWith('_') === true ? unit.slice(1) : unit
  return bare !== undefined && UNIT.test(bare) ? bare : undefined
}

/** The kernel's memory for TCP, of all sockets of the machine. */
export interface TcpMemory {
  readonly pages: number
  /** It is short: memory is taken back from sockets, and what comes for them may be dropped. */
  readonly short: boolean
}

/**
 * From /proc/net/protocols and, where it can be read, /proc/sys/net/ipv4/tcp_mem (tcp(7)). The kernel
 * says "short" until it next looks; below its first mark it will then be at ease.
 */
export function parseTcpMemory(protocols: string, marks: string): TcpMemory | undefined {
  const [, pages, press] = lineOf(protocols, /^TCP +\d+ +\d+ +(\d+) +(yes|no) /) ?? []
  if (pages === undefined) return undefined
  const low = Number(/^(\d+)\s+\d+\s+\d+\s*$/.exec(marks)?.[1] ?? 0)
  return { pages: Number(pages), short: press === 'yes' && Number(pages) >= low }
}

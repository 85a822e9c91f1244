/**
 * The kernel's socket tables in /proc as bytes: read whole, searched for what is asked, and only the rows found
 * are parsed. A machine may have thousands of sockets, and one connection asks about one.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { toOctets } from './address.ts'
import type { Endpoint, FourTuple } from './address.ts'
import { findAccepted } from './match.ts'
import type { Accepted } from './match.ts'
import { parseSocketTable } from './procfs.ts'
import type { ByteOrder, SocketRow } from './procfs.ts'

/** The tables of one network namespace and transport: of IPv4, then of IPv6. */
export type Tables = readonly Buffer[]

const NEWLINE = 0x0a
const FIRST_BYTES = 64 * 1024
/** Some 400,000 sockets. A longer table is not cut: it is an error, and nothing is observed. */
const MAX_TABLE_BYTES = 64 * 1024 * 1024

/**
 * Reads `net/tcp` and `net/tcp6` (`net/udp` and `net/udp6`) below `process` (`/proc/self`, `/proc/PID`). A family the kernel
 * lacks is empty. Throws what the file system throws otherwise, and a RangeError over 64 MiB.
 */
export function readTables(process: string, transport: 'tcp' | 'udp' = 'tcp'): Tables {
  return ['', '6'].map((family) => readWhole(`${process}/net/${transport}${family}`))
}

function readWhole(path: string): Buffer {
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return Buffer.alloc(0)
    throw error
  }
  try {
    let held = Buffer.allocUnsafe(FIRST_BYTES)
    let size = 0
    for (;;) {
      // The kernel gives a page or so at a time, whatever it is asked for.
      const got = readSync(file, held, size, held.length - size, null)
      if (got === 0) return held.subarray(0, size)
      size += got
      if (size > MAX_TABLE_BYTES) throw new RangeError(`${path} is over ${MAX_TABLE_BYTES} bytes`)
      if (held.length - size < FIRST_BYTES / 2) {
        held = Buffer.concat([held.subarray(0, size)], held.length * 2)
      }
    }
  } finally {
    closeSync(file)
  }
}

/** The other end of the connection `dialled` (as its dialler sees it) in `tables`. */
export function acceptedIn(tables: Tables, dialled: FourTuple, order: ByteOrder): Accepted {
  const rows = tables.flatMap((table) =>
    needles(dialled, order).flatMap((needle) => rowsWith(table, needle, order)),
  )
  return findAccepted(rows, dialled)
}

/** The rows with the local `port`. */
export function boundTo(tables: Tables, port: number, order: ByteOrder): SocketRow[] {
  const needle = `:${printedPort(port)} `
  const rows = tables.flatMap((table) => rowsWith(table, needle, order))
  return rows.filter(({ local }) => local.port === port)
}

/** The rows of listening sockets. */
export function listening(tables: Tables, order: ByteOrder): SocketRow[] {
  return tables.flatMap((table) => rowsWith(table, ':0000 0A ', order))
}

/** The rows whose line holds `needle`. */
function rowsWith(table: Buffer, needle: string, order: ByteOrder): SocketRow[] {
  const lines: string[] = []
  for (let at = table.indexOf(needle, 0, 'latin1'); at >= 0;) {
    const start = table.lastIndexOf(NEWLINE, at) + 1
    const end = table.indexOf(NEWLINE, at)
    const next = end < 0 ? table.length : end
    lines.push(table.toString('latin1', start, next))
    at = table.indexOf(needle, next, 'latin1')
  }
  return parseSocketTable(lines.join('\n'), order)
}

/** How the row of the other end begins: an IPv4 connection may stand in either table. */
function needles({ local, remote }: FourTuple, order: ByteOrder): string[] {
  const forms = isIPv4(remote.address) ? (['plain', 'mapped'] as const) : (['plain'] as const)
  return forms.map((form) => `${printed(remote, form, order)} ${printed(local, form, order)} `)
}

/** An endpoint as the table prints it: 32-bit words in the machine's order, upper-case hex. */
function printed(end: Endpoint, form: 'plain' | 'mapped', order: ByteOrder): string {
  const octets = toOctets(end.address)
  const whole = form === 'mapped' ? [...MAPPED_PREFIX, ...octets] : octets
  const bytes = Buffer.from(whole)
  if (order === 'LE') bytes.swap32()
  return `${bytes.toString('hex').toUpperCase()}:${printedPort(end.port)}`
}

function printedPort(port: number): string {
  return port.toString(16).toUpperCase().padStart(4, '0')
}

const MAPPED_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]

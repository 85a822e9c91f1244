/**
 * The conversation with the kernel's sock_diag: a netlink socket opened through node:ffi, asked without
 * waiting. Where this Node, this libc or a sandbox has no such thing, there is none, and /proc is read
 * instead. decisions/0011.
 */
import type { FourTuple } from './address.ts'
import { AF_INET, AF_INET6, askBound, askListeners, askOtherEnd, readSaid } from './diag.ts'
import type { Writing } from './diag.ts'
import { libc } from './libc.ts'
import type { Libc } from './libc.ts'
import { findAccepted } from './match.ts'
import type { Accepted } from './match.ts'
import type { ByteOrder, SocketRow } from './procfs.ts'

const AF_NETLINK = 16
/** SOCK_RAW | SOCK_CLOEXEC. */
const SOCK_KIND = 0o2000003
const NETLINK_SOCK_DIAG = 4
const MSG_DONTWAIT = 0x40
/** The kernel's datagrams are 32 KiB at most. */
const ANSWER_BYTES = 64 * 1024
/** Datagrams to one question: some 300 rows each. */
const MAX_DATAGRAMS = 1024

/** Asks sock_diag: synchronously, one question at a time, over a netlink socket of its own. */
export class Diag {
  readonly #libc: Libc
  readonly #order: ByteOrder
  readonly #answer = new Uint8Array(ANSWER_BYTES)
  #sequence = 0

  private constructor(calls: Libc, order: ByteOrder) {
    this.#libc = calls
    this.#order = order
  }

  /** Undefined where libc cannot be called from here. */
  static open(order: ByteOrder): Diag | undefined {
    const calls = libc()
    return calls === undefined ? undefined : new Diag(calls, order)
  }

  /**
   * The other end of `dialled` in this network namespace. Undefined where the kernel did not say;
   * `absent` may also mean that the kernel has no module for the question.
   */
  otherEnd(dialled: FourTuple): Accepted | undefined {
    const rows = this.#ask((writing) => askOtherEnd(dialled, writing), false)
    return rows === undefined ? undefined : findAccepted(rows, dialled)
  }

  /** Every listening socket; undefined where the kernel did not say, or has no module for it. */
  listeners(): readonly SocketRow[] | undefined {
    return this.#ofBothFamilies(askListeners)
  }

  /** Every UDP socket with the local `port`; undefined as for `listeners`. */
  bound(port: number): readonly SocketRow[] | undefined {
    return this.#ofBothFamilies((family, writing) => askBound(family, port, writing))
  }

  #ofBothFamilies(
    question: (family: number, writing: Writing) => Uint8Array,
  ): readonly SocketRow[] | undefined {
    const rows: SocketRow[] = []
    for (const family of [AF_INET, AF_INET6]) {
      const some = this.#ask((writing) => question(family, writing), true)
      if (some === undefined) return undefined
      rows.push(...some)
    }
    return rows
  }

  #ask(
    question: (writing: Writing) => Uint8Array,
    many: boolean,
  ): readonly SocketRow[] | undefined {
    const fd = this.#libc.socket(AF_NETLINK, SOCK_KIND, NETLINK_SOCK_DIAG)
    if (fd < 0) return undefined
    try {
      return this.#askOver(fd, question, many)
    } finally {
      this.#libc.close(fd)
    }
  }

  #askOver(
    fd: number,
    question: (writing: Writing) => Uint8Array,
    many: boolean,
  ): readonly SocketRow[] | undefined {
    this.#sequence = (this.#sequence + 1) >>> 0
    const writing = { order: this.#order, sequence: this.#sequence }
    const bytes = question(writing)
    if (Number(this.#libc.send(fd, bytes, BigInt(bytes.length), 0)) !== bytes.length)
      return undefined
    const rows: SocketRow[] = []
    for (let datagram = 0; datagram < MAX_DATAGRAMS; datagram++) {
      const room = BigInt(this.#answer.length)
      const got = Number(this.#libc.recv(fd, this.#answer, room, MSG_DONTWAIT))
      if (got <= 0) return undefined
      const said = readSaid(this.#answer.subarray(0, got), writing)
      if (said === undefined) return undefined
      rows.push(...said.rows)
      // A dump that finds no module ends with an error; that says nothing about listeners.
      if (many && said.none) return undefined
      if (many ? said.done : said.none || rows.length > 0) return rows
    }
    return undefined
  }
}

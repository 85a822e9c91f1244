/**
 * What the kernel says of sockets: asked for the one that is wanted where it can be (sock_diag), read
 * from /proc and searched otherwise. Both give the same answers.
 */
import { endianness } from 'node:os'
import { isLoopback } from './address.ts'
import type { Endpoint, FourTuple } from './address.ts'
import { findBound } from './match.ts'
import type { Accepted } from './match.ts'
import { otherNamespaces } from './namespaces.ts'
import { Diag } from './netlink.ts'
import { isOwnAddress } from './own.ts'
import type { SocketRow } from './procfs.ts'
import { Shared } from './shared.ts'
import { acceptedIn, boundTo, listening, readTables } from './table.ts'
import type { Tables } from './table.ts'

/** Of a namespace whose last process ended meanwhile, there are none. */
function tablesOf(process: string, transport: 'tcp' | 'udp' = 'tcp'): Tables {
  try {
    return readTables(process, transport)
  } catch {
    return []
  }
}

export class Sockets {
  readonly #proc: string
  readonly #order = endianness()
  readonly #diag: Diag | undefined
  readonly #tables: Shared<undefined, Tables>
  readonly #elsewhere: Shared<undefined, Tables>

  /** `proc` is the mount point of procfs; `diag` false leaves sock_diag alone. */
  constructor(proc: string, diag: boolean) {
    this.#proc = proc
    this.#diag = diag ? Diag.open(this.#order) : undefined
    this.#tables = new Shared(async () => readTables(`${proc}/self`))
    this.#elsewhere = new Shared(async () =>
      otherNamespaces(proc).flatMap((process) => tablesOf(process)),
    )
  }

  /**
   * The socket at the other end of a connection dialled from here: of this network namespace, and only
   * where it is not there, of another one of this machine. By UDP it is the sockets that get what is
   * sent, and never pending. Rejects as the file system does.
   */
  async otherEnd(dialled: FourTuple): Promise<Accepted> {
    if (dialled.transport === 'udp') return this.#boundEnd(dialled)
    const said = this.#diag?.otherEnd(dialled)
    if (said !== undefined && said.state !== 'absent') return said
    const here = acceptedIn(await this.#tables.ask(undefined), dialled, this.#order)
    // A loopback address is this namespace's own, whoever else has one.
    if (here.state !== 'absent' || isLoopback(dialled.remote.address)) return here
    return acceptedIn(await this.#elsewhere.ask(undefined), dialled, this.#order)
  }

  /**
   * The UDP sockets of this network namespace that get what is sent on `dialled`, looked at before it
   * returns. Throws as the file system does.
   */
  boundHere(dialled: FourTuple): Accepted {
    return findBound(this.bound(dialled.remote), dialled)
  }

  /** Whether what is sent to that address reaches this network namespace. */
  isHere({ address }: Endpoint): boolean {
    return isOwnAddress(address, this.#proc)
  }

  /** The rows of UDP sockets with the port of `target`. Throws as the file system does. */
  bound({ port }: Endpoint): readonly SocketRow[] {
    return (
      this.#diag?.bound(port) ?? boundTo(readTables(`${this.#proc}/self`, 'udp'), port, this.#order)
    )
  }

  #boundEnd(dialled: FourTuple): Accepted {
    // What is bound here to every address, or to one that is not ours (IP_FREEBIND), gets nothing that is sent elsewhere.
    if (this.isHere(dialled.remote)) return this.boundHere(dialled)
    const { port } = dialled.remote
    const rows = otherNamespaces(this.#proc).flatMap((process) =>
      boundTo(tablesOf(process, 'udp'), port, this.#order),
    )
    return findBound(rows, dialled)
  }

  /** The rows of listening sockets. Rejects as the file system does. */
  async listeners(): Promise<readonly SocketRow[]> {
    return this.#diag?.listeners() ?? listening(await this.#tables.ask(undefined), this.#order)
  }
}

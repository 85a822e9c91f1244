/**
 * What the kernel says of sockets: asked for the one that is wanted where it can be (sock_diag), read
 * from /proc and searched otherwise. Both give the same answers.
 */
import { endianness } from 'node:os'
import { isLoopback } from './address.ts'
import type { FourTuple } from './address.ts'
import type { Accepted } from './match.ts'
import { otherNamespaces } from './namespaces.ts'
import { Diag } from './netlink.ts'
import type { SocketRow } from './procfs.ts'
import { Shared } from './shared.ts'
import { acceptedIn, listening, readTables } from './table.ts'
import type { Tables } from './table.ts'

/** Of a namespace whose last process ended meanwhile, there are none. */
function tablesOf(process: string): Tables {
  try {
    return readTables(process)
  } catch {
    return []
  }
}

export class Sockets {
  readonly #order = endianness()
  readonly #diag: Diag | undefined
  readonly #tables: Shared<undefined, Tables>
  readonly #elsewhere: Shared<undefined, Tables>

  /** `proc` is the mount point of procfs; `diag` false leaves sock_diag alone. */
  constructor(proc: string, diag: boolean) {
    this.#diag = diag ? Diag.open(this.#order) : undefined
    this.#tables = new Shared(async () => readTables(`${proc}/self`))
    this.#elsewhere = new Shared(async () => otherNamespaces(proc).flatMap(tablesOf))
  }

  /**
   * The socket at the other end of a connection dialled from here: of this network namespace, and only
   * where it is not there, of another one of this machine. Rejects as the file system does.
   */
  async otherEnd(dialled: FourTuple): Promise<Accepted> {
    const said = this.#diag?.otherEnd(dialled)
    if (said !== undefined && said.state !== 'absent') return said
    const here = acceptedIn(await this.#tables.ask(undefined), dialled, this.#order)
    // A loopback address is this namespace's own, whoever else has one.
    if (here.state !== 'absent' || isLoopback(dialled.remote.address)) return here
    return acceptedIn(await this.#elsewhere.ask(undefined), dialled, this.#order)
  }

  /** The rows of listening sockets. Rejects as the file system does. */
  async listeners(): Promise<readonly SocketRow[]> {
    return this.#diag?.listeners() ?? listening(await this.#tables.ask(undefined), this.#order)
  }
}

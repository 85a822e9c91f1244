/**
 * What the kernel says of sockets: asked for the one that is wanted where it can be (sock_diag), read
 * from /proc and searched otherwise. Both give the same answers.
 */
import { endianness } from 'node:os'
import type { FourTuple } from './address.ts'
import type { Accepted } from './match.ts'
import { Diag } from './netlink.ts'
import type { SocketRow } from './procfs.ts'
import { Shared } from './shared.ts'
import { acceptedIn, listening, readTables } from './table.ts'
import type { Tables } from './table.ts'

export class Sockets {
  readonly #order = endianness()
  readonly #diag: Diag | undefined
  readonly #tables: Shared<undefined, Tables>

  /** `proc` is the mount point of procfs; `diag` false leaves sock_diag alone. */
  constructor(proc: string, diag: boolean) {
    this.#diag = diag ? Diag.open(this.#order) : undefined
    this.#tables = new Shared(async () => readTables(`${proc}/self`))
  }

  /** The socket at the other end of a connection dialled from here. Rejects as the file system does. */
  async otherEnd(dialled: FourTuple): Promise<Accepted> {
    const said = this.#diag?.otherEnd(dialled)
    if (said !== undefined && said.state !== 'absent') return said
    return acceptedIn(await this.#tables.ask(undefined), dialled, this.#order)
  }

  /** The rows of listening sockets. Rejects as the file system does. */
  async listeners(): Promise<readonly SocketRow[]> {
    return this.#diag?.listeners() ?? listening(await this.#tables.ask(undefined), this.#order)
  }
}

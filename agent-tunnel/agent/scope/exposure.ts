/**
 * What a target exposes: the facts of whoever listens for it, and every address those processes listen
 * on, because a service that opens a second door is another service. docs/process-scope.md.
 */
import { printEndpoint } from './address.ts'
import { Slice, socketsOf } from './holders.ts'
import type { Holder } from './holders.ts'
import { combine, unseen } from './observed.ts'
import type { Observed, ProcessFacts } from './observed.ts'
import { TCP_LISTEN } from './procfs.ts'
import type { SocketRow } from './procfs.ts'

export interface Exposure {
  /** Null when nobody listens, or too many differing ones. */
  readonly observed: Observed | null
  /**
   * TCP addresses that the listening processes listen on, and with `udp:` before them those of a UDP
   * target that they are bound to, each once, in order; empty when nobody listens. Null where they could not be seen, or are over `MAX_LISTENS`: a list is not cut.
   */
  readonly listens: readonly string[] | null
}

/** More addresses than this are not told one by one. */
const MAX_LISTENS = 64

function addressOf({ local, state }: SocketRow): string {
  return state === TCP_LISTEN ? printEndpoint(local) : `udp:${printEndpoint(local)}`
}

/** All listening sockets of the machine as one text, to be compared. */
export function machineOf(rows: readonly SocketRow[]): string {
  return rows
    .map(({ inode }) => inode)
    .toSorted((a, b) => a - b)
    .join()
}

/**
 * The exposure of each target, whose listening sockets are `inodesOf` in the same order, among the
 * owners `sights`. `rows` are the sockets they may have: TCP ones that listen, UDP ones of targets;
 * `proc` is the mount point of procfs.
 */
export async function exposuresOf(
  proc: string,
  rows: readonly SocketRow[],
  inodesOf: readonly (readonly number[])[],
  sights: readonly { readonly holder: Holder; readonly facts: ProcessFacts }[],
): Promise<readonly Exposure[]> {
  const addresses = new Map(rows.map((row) => [row.inode, addressOf(row)]))
  addresses.delete(0)
  const inodes = new Set(addresses.keys())
  const slice = new Slice()
  const exposures: Exposure[] = []
  for (const targets of inodesOf) exposures.push(await exposureOf(targets))
  return exposures

  async function exposureOf(targets: readonly number[]): Promise<Exposure> {
    if (targets.length === 0) return { observed: null, listens: [] }
    const own = sights.filter(({ holder }) =>
      holder.sockets.some(({ inode }) => targets.includes(inode)),
    )
    if (own.length === 0) return { observed: unseen('listener'), listens: null }
    const held: Awaited<ReturnType<typeof socketsOf>>[] = []
    for (const { holder } of own) held.push(await socketsOf(proc, holder.task, inodes, slice))
    return { observed: combine(own.map(({ facts }) => facts)) ?? null, listens: listens(held) }
  }

  function listens(
    held: readonly Awaited<ReturnType<typeof socketsOf>>[],
  ): readonly string[] | null {
    const found = new Set<string>()
    for (const one of held) {
      if (one === 'unreadable') return null
      for (const { inode } of one.sockets) found.add(addresses.get(inode) ?? '')
    }
    return found.size > MAX_LISTENS ? null : [...found].toSorted()
  }
}

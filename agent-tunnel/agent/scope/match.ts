/**
 * Which sockets of the kernel's table answer a question; pure. The question is never "who listens on
 * port N" for a live connection (anybody may listen beside or after), but "which socket is the other
 * end of *this* connection": the row whose local and remote ends are ours reversed.
 */
import { isWildcard } from './address.ts'
import type { Endpoint, FourTuple } from './address.ts'
import { TCP_LISTEN, TCP_SYN_SENT } from './procfs.ts'
import type { SocketRow } from './procfs.ts'

/**
 * What the table says of the other end. `pending`: the kernel completed the handshake, or holds it
 * back (TCP_DEFER_ACCEPT), and no program has accepted it yet. `absent`: the other end is not a
 * socket in this table (another machine, another network namespace, or gone).
 */
export type Accepted =
  | { readonly state: 'accepted'; readonly inodes: readonly number[] }
  | { readonly state: 'pending' }
  | { readonly state: 'absent' }

function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && a.address === b.address
}

/**
 * Finds the accepted socket of a connection dialled from here.
 *
 * A connection whose two ends are the same endpoint (TCP self-connect to a free ephemeral port) was
 * accepted by nobody and gives `absent`.
 */
export function findAccepted(rows: readonly SocketRow[], dialled: FourTuple): Accepted {
  if (sameEndpoint(dialled.local, dialled.remote)) return { state: 'absent' }
  const inodes = new Set<number>()
  let pending = false
  for (const row of rows) {
    // Who dials towards us was accepted by nobody, and takes no byte.
    if (row.state === TCP_LISTEN || row.state === TCP_SYN_SENT) continue
    if (!sameEndpoint(row.local, dialled.remote) || !sameEndpoint(row.remote, dialled.local))
      continue
    if (row.inode === 0) pending = true
    else inodes.add(row.inode)
  }
  if (inodes.size > 0) return { state: 'accepted', inodes: [...inodes] }
  return { state: pending ? 'pending' : 'absent' }
}

/**
 * Finds the UDP sockets that get a datagram from `dialled.local` to `dialled.remote`, as the kernel
 * chooses: those connected to us, else those bound to exactly that address, else those bound to every
 * address. More than one (SO_REUSEPORT, SO_REUSEADDR, udp beside udp6): any of them may, now or next,
 * so that all are told. Without `local` it is anybody's datagram.
 */
export function findBound(
  rows: readonly SocketRow[],
  { local, remote }: { readonly local?: Endpoint; readonly remote: Endpoint },
): Accepted {
  if (local !== undefined && sameEndpoint(local, remote)) return { state: 'absent' }
  const there = rows.filter((row) => row.local.port === remote.port && row.inode !== 0)
  const ours = there.filter(
    (row) =>
      local !== undefined && sameEndpoint(row.remote, local) && sameEndpoint(row.local, remote),
  )
  // A socket that is connected to somebody else gets nothing from us.
  const open = there.filter((row) => row.remote.port === 0)
  const exact = open.filter((row) => row.local.address === remote.address)
  const tiers = [ours, exact, open.filter((row) => isWildFor(row, remote))]
  const chosen = tiers.find((tier) => tier.length > 0)
  if (chosen === undefined) return { state: 'absent' }
  return { state: 'accepted', inodes: [...new Set(chosen.map((row) => row.inode))] }
}

/** An IPv6 wildcard takes IPv4 too, as a rule; the table does not say where it does not. */
function isWildFor({ local }: SocketRow, target: Endpoint): boolean {
  return isWildcard(local.address) && (!target.address.includes(':') || local.address === '::')
}

/**
 * Inodes of the sockets that would be given a new connection to `target`: those bound to exactly its
 * address, else those bound to every address. More than one (SO_REUSEPORT, or tcp beside tcp6) means
 * the kernel chooses, so all of them are told.
 */
export function findListeners(rows: readonly SocketRow[], target: Endpoint): readonly number[] {
  const listening = rows.filter((row) => row.state === TCP_LISTEN && row.local.port === target.port)
  const exact = listening.filter((row) => row.local.address === target.address)
  const wild = listening.filter((row) => isWildFor(row, target))
  const chosen = exact.length > 0 ? exact : wild
  return [...new Set(chosen.map((row) => row.inode).filter((inode) => inode !== 0))]
}

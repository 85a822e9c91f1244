/**
 * Which addresses are this network namespace's own: what is sent there stays in it, and what is sent elsewhere is answered by
 * none of its sockets, whatever they are bound to. As the kernel's routes say it: an interface without a carrier keeps its
 * addresses, and a whole network may be local (`ip route add local`). fib_trie, ipv6_route in proc_pid_net(5).
 */
import { readFileSync } from 'node:fs'
import { BlockList } from 'node:net'
import { networkInterfaces } from 'node:os'
import { canonicalAddress, fromOctets, isLoopback, isWildcard } from './address.ts'

/** The addresses with the first `prefix` bits of `address`. */
export interface Prefix {
  readonly address: string
  readonly prefix: number
}

/** What networkInterfaces tells, as far as it is used here. */
type Interfaces = Readonly<Partial<Record<string, readonly { readonly address: string }[]>>>

/** RTF_LOCAL, linux/ipv6_route.h. */
const LOCAL = 0x8000_0000

/** What `net/fib_trie` says is local, in its order and as often. Tables that only some packets are routed by do not count. */
export function localOf(fibTrie: string): readonly Prefix[] {
  const found: Prefix[] = []
  let address: string | undefined
  let counts = false
  for (const line of fibTrie.split('\n')) {
    if (/^\S/.test(line)) counts = line === 'Main:' || line === 'Local:'
    if (!counts) continue
    const leaf = /^\s*\|-- (\d+\.\d+\.\d+\.\d+)$/.exec(line)
    if (leaf !== null) address = leaf[1]
    const prefix = /^\s*\/(\d+) \S+ LOCAL\b/.exec(line)?.[1]
    if (address !== undefined && prefix !== undefined && prefix !== '0')
      found.push({ address, prefix: Number(prefix) })
  }
  return found
}

/** The same of `net/ipv6_route`, which does not tell tables apart: a route for all there is belongs to a proxy. */
export function localOf6(routes: string): readonly Prefix[] {
  return routes.split('\n').flatMap((line) => {
    const [octets = '', prefix = '', , , , , , , flags = ''] = line.trim().split(/\s+/)
    if (!/^[0-9a-f]{32}$/.test(octets) || (Number.parseInt(flags, 16) & LOCAL) === 0) return []
    if (prefix === '00') return []
    return [
      { address: fromOctets(Buffer.from(octets, 'hex')), prefix: Number.parseInt(prefix, 16) },
    ]
  })
}

/**
 * Whether an address, as canonicalAddress writes it, is this namespace's own now. `proc`: the mount point of procfs. Where the
 * kernel's routes cannot be read, the interfaces that are up are asked.
 */
export function isOwnAddress(address: string, proc = '/proc'): boolean {
  // Who connects to no address gets this machine.
  if (isLoopback(address) || isWildcard(address)) return true
  const family = address.includes(':') ? 'ipv6' : 'ipv4'
  try {
    const list = new BlockList()
    const prefixes =
      family === 'ipv4'
        ? localOf(readFileSync(`${proc}/self/net/fib_trie`, 'latin1'))
        : localOf6(readFileSync(`${proc}/self/net/ipv6_route`, 'latin1'))
    for (const local of prefixes) list.addSubnet(local.address, local.prefix, family)
    return list.check(address, family)
  } catch {
    return isOfInterface(address, networkInterfaces())
  }
}

/**
 * Whether an address, as canonicalAddress writes it, may be this machine itself: as isOwnAddress says, or one of an interface.
 * The routes of another table (a VRF's) say of an address that it is local to who is bound there alone.
 */
export function maybeThisMachine(
  address: string,
  proc = '/proc',
  interfaces: Interfaces = networkInterfaces(),
): boolean {
  return isOwnAddress(address, proc) || isOfInterface(address, interfaces)
}

function isOfInterface(address: string, interfaces: Interfaces): boolean {
  return Object.values(interfaces).some((own) =>
    own?.some((one) => canonicalAddress(one.address) === address),
  )
}

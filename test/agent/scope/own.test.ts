/** Which addresses are this machine's own, by the kernel's routes as it prints them. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { assertBeside } from '../../../agent-tunnel/agent/observe.ts'
import { canonicalAddress } from '../../../agent-tunnel/agent/scope/address.ts'
import {
  isOwnAddress,
  localOf,
  localOf6,
  maybeThisMachine,
} from '../../../agent-tunnel/agent/scope/own.ts'
import { holds } from '../../support/patience.ts'

// Linux 6.18: an interface with an address and without a carrier, a network that is local as a whole, one that is not, and
// the table of a proxy that has all there is.
const FIB_TRIE = `Id 100:
  |-- 0.0.0.0
     /0 host LOCAL
Main:
  +-- 0.0.0.0/0 2 0 2
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 198.18.0.0/22 2 0 1
        +-- 198.18.1.0/30 2 0 1
           |-- 198.18.1.0
              /30 link UNICAST
           |-- 198.18.1.1
              /32 host LOCAL
           |-- 198.18.1.3
              /32 link BROADCAST
        |-- 198.18.2.0
           /24 host LOCAL
        |-- 198.18.3.0
           /24 universe UNICAST
`
const IPV6_ROUTE = `20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001      sp0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 80000001       lo
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001       lo
20010db8000000000000000000000005 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001      sp0
20010db8000100000000000000000000 30 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 80000001       lo
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001      sp0
`

test('what the routes of IPv4 say is local: no neighbour, no broadcast, no table of a proxy', () => {
  expect(localOf(FIB_TRIE)).toEqual([
    { address: '127.0.0.0', prefix: 8 },
    { address: '127.0.0.1', prefix: 32 },
    { address: '198.18.1.1', prefix: 32 },
    { address: '198.18.2.0', prefix: 24 },
  ])
})

test('the same of IPv6', () => {
  expect(localOf6(IPV6_ROUTE)).toEqual([
    { address: '::1', prefix: 128 },
    { address: '2001:db8::5', prefix: 128 },
    { address: '2001:db8:1::', prefix: 48 },
  ])
})

const ofInterfaces = () =>
  Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).map(({ address }) => canonicalAddress(address)!),
  )

test('of this machine: every address of an interface, loopback whole, and none of elsewhere', async () => {
  // Others make and remove interfaces meanwhile, and IPv6 routes an address when it knows that nobody else has it.
  await holds(() => expect(ofInterfaces().filter((address) => !isOwnAddress(address))).toEqual([]))
  for (const address of ['127.9.9.9', '::1', '0.0.0.0', '::'])
    expect([address, isOwnAddress(address)]).toEqual([address, true])
  for (const address of ['203.0.113.7', '2001:db8:ffff::7'])
    expect([address, isOwnAddress(address)]).toEqual([address, false])
})

test('an address that only the table of a VRF has may be this machine', () => {
  const proc = mkdtempSync(join(tmpdir(), 'sallyport-own-'))
  try {
    mkdirSync(join(proc, 'self/net'), { recursive: true })
    writeFileSync(
      join(proc, 'self/net/fib_trie'),
      `${FIB_TRIE}Id 10:\n  |-- 203.0.113.7\n     /32 host LOCAL\n`,
    )
    writeFileSync(join(proc, 'self/net/ipv6_route'), IPV6_ROUTE)
    const of = (address: string) => ({ blue: [{ address }] })
    expect(isOwnAddress('203.0.113.7', proc)).toBe(false)
    expect(maybeThisMachine('203.0.113.7', proc, of('203.0.113.7'))).toBe(true)
    expect(maybeThisMachine('203.0.113.8', proc, of('203.0.113.7'))).toBe(false)
    // By the routes alone, of an interface that is not up.
    expect(maybeThisMachine('198.18.1.1', proc, {})).toBe(true)
    expect(maybeThisMachine('2001:db8::6', proc, of('2001:db8:0::6'))).toBe(true)
  } finally {
    rmSync(proc, { recursive: true, force: true })
  }
})

test('where there are no routes to read, the interfaces are asked', () => {
  const before = ofInterfaces()
  const seen = before.filter((address) => !isOwnAddress(address, '/nonexistent'))
  const after = ofInterfaces()
  expect(seen.filter((address) => after.includes(address))).toEqual([])
  expect(isOwnAddress('203.0.113.7', '/nonexistent')).toBe(false)
})

test('the address of a service that the kernel translates: a lan target is refused, and the next step said', () => {
  const at = { address: '127.0.0.1', port: 502 }
  for (const [kind, here] of [
    ['lan', 'tcp'],
    ['lan_udp', 'udp'],
  ] as const)
    expect(() => assertBeside('plc', { kind, endpoint: at })).toThrow(
      `the ${kind} target plc is this machine itself; write "${here}"; where addresses are translated, dial the container's own`,
    )
  expect(() => assertBeside('plc', { kind: 'tcp', endpoint: at })).not.toThrow()
})

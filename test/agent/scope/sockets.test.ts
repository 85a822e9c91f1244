/** The kernel's sockets, asked for and read: what is found, and that both ways find the same. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { endianness } from 'node:os'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { endpoint, fromOctets, toOctets } from '../../../agent-tunnel/agent/scope/address.ts'
import {
  AF_INET,
  askListeners,
  askOtherEnd,
  readSaid,
} from '../../../agent-tunnel/agent/scope/diag.ts'
import { findAccepted } from '../../../agent-tunnel/agent/scope/match.ts'
import { Diag } from '../../../agent-tunnel/agent/scope/netlink.ts'
import { parseSocketTable } from '../../../agent-tunnel/agent/scope/procfs.ts'
import { acceptedIn, listening, readTables } from '../../../agent-tunnel/agent/scope/table.ts'
import { Usual } from '../../../agent-tunnel/agent/scope/usual.ts'
import { dial } from '../programs/process.ts'

const at = (address: string, port: number) => endpoint(address, port)!
const order = endianness()

const octets = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
  // Runs of zeros, and the forms that hold an IPv4 address.
  fc
    .tuple(fc.constantFrom(0, 0xff), fc.uint8Array({ minLength: 4, maxLength: 4 }))
    .map(([fill, last]) => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, fill, fill, ...last)),
)
const port = fc.integer({ min: 1, max: 65_535 })

/** A row as the kernel prints it. */
function rowOf(
  family: 'tcp' | 'tcp6',
  [local, localPort, remote, remotePort]: readonly [string, number, string, number],
  state: string,
  inode: number,
): string {
  const end = (address: string, number: number) => {
    const own = toOctets(address)
    const wide = own.length === 4 && family === 'tcp6'
    const bytes = Buffer.from(wide ? [...Array<number>(10).fill(0), 255, 255, ...own] : own)
    return `${bytes.swap32().toString('hex').toUpperCase()}:${number.toString(16).toUpperCase().padStart(4, '0')}`
  }
  return `   0: ${end(local, localPort)} ${end(remote, remotePort)} ${state} 00000000:00000000 00:00000000 00000000  1001        0 ${inode} 1 0000000000000000 20 4 30 10 -1`
}

describe('a table searched as bytes', () => {
  test('octets and text of an address are each other', () => {
    fc.assert(
      fc.property(octets, (bytes) => {
        const text = fromOctets(bytes)
        expect(fromOctets(Uint8Array.from(toOctets(text)))).toBe(text)
      }),
    )
  })

  test('finds exactly what parsing every row finds', () => {
    const connection = fc
      .tuple(octets, port, octets, port)
      .filter(([a, , b]) => fromOctets(a).includes(':') === fromOctets(b).includes(':'))
    fc.assert(
      fc.property(fc.array(connection, { minLength: 1, maxLength: 8 }), fc.nat(7), (all, pick) => {
        const ends = all.map(([a, ap, b, bp]) => [fromOctets(a), ap, fromOctets(b), bp] as const)
        const lines = ends.map((end, nth) => {
          const wide = toOctets(end[0]).length === 16 || toOctets(end[2]).length === 16
          return rowOf(
            wide || nth % 2 === 1 ? 'tcp6' : 'tcp',
            end,
            nth % 3 === 2 ? '0A' : '01',
            nth,
          )
        })
        const text = `  sl  local_address\n${lines.join('\n')}\n`
        const [local, localPort, remote, remotePort] = ends[pick % ends.length]!
        const dialled = { local: at(remote, remotePort), remote: at(local, localPort) }
        expect(acceptedIn([Buffer.from(text)], dialled, 'LE')).toEqual(
          findAccepted(parseSocketTable(text), dialled),
        )
      }),
    )
  })

  test('a port that ends like ours, a row that is cut off, no rows at all', () => {
    const row = rowOf('tcp', ['127.0.0.1', 1502, '127.0.0.1', 50_000], '01', 7)
    const dialled = { local: at('127.0.0.1', 50_000), remote: at('127.0.0.1', 1502) }
    expect(acceptedIn([Buffer.from(row)], dialled, 'LE')).toEqual({
      state: 'accepted',
      inodes: [7],
    })
    expect(acceptedIn([Buffer.from(row.slice(0, 60))], dialled, 'LE')).toEqual({ state: 'absent' })
    expect(acceptedIn([Buffer.alloc(0), Buffer.alloc(0)], dialled, 'LE').state).toBe('absent')
    const other = rowOf('tcp', ['127.0.0.1', 0x1502, '127.0.0.1', 50_000], '01', 7)
    expect(acceptedIn([Buffer.from(other)], dialled, 'LE').state).toBe('absent')
  })

  test('only listening rows are listeners', () => {
    const text = [
      rowOf('tcp', ['127.0.0.1', 1502, '0.0.0.0', 0], '0A', 5),
      rowOf('tcp', ['127.0.0.1', 1502, '127.0.0.1', 50_000], '01', 6),
      rowOf('tcp6', ['::', 443, '::', 0], '0A', 7),
    ].join('\n')
    expect(listening([Buffer.from(text)], 'LE').map(({ inode }) => inode)).toEqual([5, 7])
  })
})

// One answer of Linux 6.18 (little-endian) to askOtherEnd: 127.0.0.1:46079 <- 127.0.0.1:33380;
// its attributes left out, its length set accordingly.
const ANSWER = Uint8Array.fromHex(
  [
    '58000000140000000700000040060000',
    '02010000b3ff8264',
    '7f000001000000000000000000000000',
    '7f000001000000000000000000000000',
    '00000000b904000000000000',
    '00000000000000000000000000000000a5811c00',
  ].join(''),
)
const writing = { order: 'LE', sequence: 7 } as const

describe('sock_diag as bytes', () => {
  test('an answer of the kernel', () => {
    expect(readSaid(ANSWER, writing)).toEqual({
      rows: [
        {
          local: { address: '127.0.0.1', port: 46_079 },
          remote: { address: '127.0.0.1', port: 33_380 },
          state: 1,
          uid: 0,
          inode: 0x1c81a5,
        },
      ],
      none: false,
      done: false,
    })
  })

  test('an answer to another question says nothing', () => {
    expect(readSaid(ANSWER, { order: 'LE', sequence: 8 })?.rows).toEqual([])
  })

  test.for([
    ['cut short', ANSWER.subarray(0, 60)],
    ['a length within its own header', Uint8Array.of(8, ...ANSWER.subarray(1))],
    ['a message of another kind', ANSWER.with(4, 99)],
    [
      'an error other than ENOENT',
      new Uint8Array(
        Uint8Array.fromHex(
          '24000000020000000700000000000000ffffffff00000000000000000000000000000000',
        ),
      ),
    ],
  ] as const)('%s: nothing is known', ([, bytes]) => {
    expect(readSaid(bytes, writing)).toBeUndefined()
  })

  test('ENOENT is no socket; DONE is the end', () => {
    const none = Uint8Array.fromHex(
      '24000000020000000700000000000000feffffff00000000000000000000000000000000',
    )
    expect(readSaid(none, writing)).toEqual({ rows: [], none: true, done: false })
    const done = Uint8Array.fromHex('1400000003000000070000000000000000000000')
    expect(readSaid(done, writing)).toEqual({ rows: [], none: false, done: true })
  })

  test('whatever comes, it is read or refused', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 300 }),
        fc.nat(87),
        fc.nat(255),
        (noise, spot, value) => {
          readSaid(noise, writing)
          readSaid(ANSWER.with(spot, value), writing)
        },
      ),
    )
  })

  test('the question names the other end first, in network order', () => {
    const asked = askOtherEnd(
      { local: at('10.0.0.9', 0x1234), remote: at('::ffff:10.0.0.5', 0x01f6) },
      writing,
    )
    expect(Buffer.from(asked.subarray(24, 48)).toString('hex')).toBe(
      '01f612340a0000050000000000000000000000000a000009'.slice(0, 48),
    )
    expect(asked.length).toBe(72)
    expect(Buffer.from(askListeners(AF_INET, writing)).readUInt32LE(20)).toBe(1 << 10)
  })
})

describe.skipIf(!existsSync('/proc/self/net/tcp'))(
  'asked and read, the kernel says the same',
  () => {
    test.for([
      ['127.0.0.1', '127.0.0.1'],
      ['::', '::ffff:127.0.0.1'],
      ['::', '127.0.0.1'],
      ['::', '::1'],
    ] as const)('listening on %s, reached as %s', async ([host, reached]) => {
      const server = createServer().listen(0, host)
      await once(server, 'listening')
      const { port: number } = server.address() as { port: number }
      const accepted = once(server, 'connection')
      await using socket = await dial(number, reached)
      await accepted
      const dialled = {
        local: endpoint(socket.localAddress!, socket.localPort!)!,
        remote: endpoint(socket.remoteAddress!, socket.remotePort!)!,
      }
      const diag = Diag.open(order)!
      const asked = diag.otherEnd(dialled)
      expect(asked).toMatchObject({ state: 'accepted', inodes: [expect.any(Number)] })
      expect(acceptedIn(readTables('/proc/self'), dialled, order)).toEqual(asked)
      const own = (rows: ReturnType<typeof listening>) =>
        rows.filter(({ local }) => local.port === number)
      expect(own([...diag.listeners()!])).toEqual(own(listening(readTables('/proc/self'), order)))
      expect(own([...diag.listeners()!])).toHaveLength(1)
      server.close()
    })

    test('a listener alone is nobody at the other end', async () => {
      const server = createServer().listen(0, '127.0.0.1')
      await once(server, 'listening')
      const { port: number } = server.address() as { port: number }
      const dialled = { local: at('127.0.0.1', 1), remote: at('127.0.0.1', number) }
      expect(Diag.open(order)!.otherEnd(dialled)).toEqual({ state: 'absent' })
      server.close()
    })
  },
)

describe('where owners were found before', () => {
  test('nobody at first; then those found, the latest first, a few at most', () => {
    const usual = new Usual()
    expect(usual.first('a')).toEqual([])
    usual.found('a', [1, 2])
    usual.found('a', [3, 1])
    expect(usual.first('a')).toEqual([3, 1, 2])
    usual.found(
      'a',
      Array.from({ length: 40 }, (_, nth) => 100 + nth),
    )
    expect(usual.first('a')).toHaveLength(16)
    expect(usual.first('b')).toEqual([])
  })

  test('an answer that was not all is not given again for a while', () => {
    const usual = new Usual()
    usual.found('a', [1])
    usual.missed('a')
    for (let opening = 0; opening < 64; opening++) {
      expect(usual.first('a')).toEqual([])
      usual.found('a', [1, 2])
    }
    expect(usual.first('a')).toEqual([1, 2])
  })

  test('targets are forgotten before they are too many', () => {
    const usual = new Usual()
    for (let nth = 0; nth <= 256; nth++) usual.found(String(nth), [nth])
    expect(usual.first('0')).toEqual([])
    expect(usual.first('256')).toEqual([256])
  })
})

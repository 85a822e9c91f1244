import { describe, expect, test } from 'vitest'
import {
  canonicalAddress,
  endpoint,
  fromOctets,
  printEndpoint,
} from '../../../agent-tunnel/agent/scope/address.ts'
import { findAccepted, findListeners } from '../../../agent-tunnel/agent/scope/match.ts'
import {
  parseBootTime,
  parseSocketLink,
  parseSocketTable,
  parseStartTicks,
  parseTcpMemory,
  parseUid,
  parseUnit,
} from '../../../agent-tunnel/agent/scope/procfs.ts'

// Captured from a Linux 6.18 machine (little-endian); ports and inodes as they were.
const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     
   0: 0100007F:05DE 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 20411 1 000000001a28aef2 100 0 0 10 0                      
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1583 1 000000001a28aef2 100 0 0 10 0                      
   2: 0100007F:05DE 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1001        0 20999 1 0000000011111111 20 4 30 10 -1                     
   3: 0100007F:C350 0100007F:05DE 01 00000000:00000000 00:00000000 00000000     0        0 20998 1 0000000022222222 20 4 30 10 -1                     
   4: 0100007F:05DE 0100007F:C351 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000033333333 20 4 30 10 -1                         
   5: 0100007F:05DE 0100007F:C352 03 00000000:00000000 01:00000062 00000000     0        0 0 1 0000000044444444                                       
   6: 0500000A:0277 0A00000A:A0A0 06 00000000:00000000 03:00000F2A 00000000     0        0 0 3 0000000055555555                                       
   7: not a row
`
const TCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 30001 1 0000000066666666 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:C400 01 00000000:00000000 00:00000000 00000000     0        0 30002 1 0000000077777777 20 4 30 10 -1
   2: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:C401 01 00000000:00000000 00:00000000 00000000     0        0 30003 1 0000000088888888 20 4 30 10 -1
   3: B80D0120000000000000000001000000:1F90 B80D0120000000000000000002000000:C402 01 00000000:00000000 00:00000000 00000000     0        0 30004 1 0000000099999999 20 4 30 10 -1
`
const rows = [...parseSocketTable(TCP), ...parseSocketTable(TCP6)]
const at = (address: string, port: number) => endpoint(address, port)!

describe('socket tables', () => {
  test('every row that is one, none of the heading and the broken line', () => {
    expect(parseSocketTable(TCP)).toHaveLength(7)
    expect(parseSocketTable(TCP6)).toHaveLength(4)
    expect(parseSocketTable(TCP)[2]).toEqual({
      local: { address: '127.0.0.1', port: 1502 },
      remote: { address: '127.0.0.1', port: 50_000 },
      state: 1,
      uid: 1001,
      inode: 20_999,
    })
  })

  test('a big-endian machine writes its words the other way round', () => {
    const row = TCP.split('\n')[3]!.replaceAll('0100007F', '7F000001')
    expect(parseSocketTable(row, 'BE')[0]?.local.address).toBe('127.0.0.1')
  })

  test('IPv6 comes out as RFC 5952 writes it, mapped as IPv4', () => {
    expect(parseSocketTable(TCP6).map((row) => row.local.address)).toEqual([
      '::',
      '127.0.0.1',
      '::1',
      '2001:db8::1',
    ])
  })

  test.for([
    ['', 0],
    ['\0'.repeat(4096), 0],
    ['0: ZZ:0 0:0 01 0:0 0:0 0 0 0 1', 0],
    ['   0: 0100007F:05DE 0100007F:C350 01', 0],
  ] as const)('garbage %j gives %d rows', ([text, count]) => {
    expect(parseSocketTable(text)).toHaveLength(count)
  })
})

describe('the other end of a connection', () => {
  test.for([
    ['accepted', '127.0.0.1', 50_000, '127.0.0.1', 1502, { state: 'accepted', inodes: [20_999] }],
    ['waiting in the accept queue', '127.0.0.1', 50_001, '127.0.0.1', 1502, { state: 'pending' }],
    ['held back by TCP_DEFER_ACCEPT', '127.0.0.1', 50_002, '127.0.0.1', 1502, { state: 'pending' }],
    ['nobody', '127.0.0.1', 50_003, '127.0.0.1', 1502, { state: 'absent' }],
    [
      'IPv4 accepted by a dual-stack socket',
      '127.0.0.1',
      0xc400,
      '127.0.0.1',
      8080,
      { state: 'accepted', inodes: [30_002] },
    ],
    [
      'the same, dialled as mapped',
      '::ffff:127.0.0.1',
      0xc400,
      '::ffff:127.0.0.1',
      8080,
      { state: 'accepted', inodes: [30_002] },
    ],
    ['IPv6 loopback', '::1', 0xc401, '::1', 8080, { state: 'accepted', inodes: [30_003] }],
    [
      'IPv6 written long',
      '2001:0db8:0::2',
      0xc402,
      '2001:DB8::1',
      8080,
      { state: 'accepted', inodes: [30_004] },
    ],
    [
      'our own end is not the other end',
      '127.0.0.1',
      1502,
      '127.0.0.1',
      50_000,
      { state: 'accepted', inodes: [20_998] },
    ],
    [
      'a connection to itself was accepted by nobody',
      '127.0.0.1',
      50_000,
      '127.0.0.1',
      50_000,
      { state: 'absent' },
    ],
  ] as const)('%s', ([, la, lp, ra, rp, expected]) => {
    expect(findAccepted(rows, { local: at(la, lp), remote: at(ra, rp) })).toEqual(expected)
  })

  test('who dials towards us at that moment has accepted nothing', () => {
    const dialled = { local: at('127.0.0.1', 50_000), remote: at('127.0.0.1', 1502) }
    const row = { local: dialled.remote, remote: dialled.local, uid: 1001 }
    const dialling = { ...row, state: 0x02, inode: 40_001 }
    const accepted = { ...row, state: 0x01, inode: 40_002 }
    expect(findAccepted([dialling], dialled)).toEqual({ state: 'absent' })
    const both = findAccepted([dialling, accepted], dialled)
    expect(both).toEqual({ state: 'accepted', inodes: [40_002] })
  })

  test('a listener of the same port is never the other end', () => {
    const listening = rows.filter((row) => row.state === 0x0a)
    expect(
      findAccepted(listening, { local: at('127.0.0.1', 50_000), remote: at('127.0.0.1', 1502) })
        .state,
    ).toBe('absent')
  })
})

describe('listeners', () => {
  test.for([
    ['bound to the address', '127.0.0.1', 1502, [20_411]],
    ['bound to every address', '10.0.0.5', 22, [1583]],
    ['a dual-stack socket for an IPv4 target', '127.0.0.1', 8080, [30_001]],
    ['an IPv4 wildcard does not serve an IPv6 target', '::1', 22, []],
    ['nobody', '127.0.0.1', 9, []],
    ['another address of the machine', '127.0.0.2', 1502, []],
  ] as const)('%s', ([, address, port, inodes]) => {
    expect(findListeners(rows, at(address, port))).toEqual(inodes)
  })

  test('a socket bound to exactly the address goes before a wildcard; sharing ones are all told', () => {
    const wild = {
      local: at('127.0.0.1', 1502),
      remote: { address: '0.0.0.0', port: 0 },
      state: 0x0a,
      uid: 0,
    }
    const more = [
      ...rows,
      { ...wild, inode: 5 },
      { ...wild, local: { address: '0.0.0.0', port: 1502 }, inode: 6 },
    ]
    expect(findListeners(more, at('127.0.0.1', 1502))).toEqual([20_411, 5])
  })
})

describe('the files of one process', () => {
  test('a program may call itself what it likes; its start time is still found', () => {
    const stat =
      '4711 (evil) S 1 (x)) S 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 11 0 109101 3133440 417 1 1'
    expect(parseStartTicks(stat)).toBe(109_101)
    expect(parseStartTicks('4711 (short) S 1')).toBeUndefined()
    expect(parseStartTicks('')).toBeUndefined()
  })

  test('boot time and socket links', () => {
    expect(parseBootTime('cpu 1 2 3\nbtime 1795224000\nprocesses 5\n')).toBe(1_795_224_000)
    expect(parseBootTime('cpu 1\n')).toBeUndefined()
    expect(parseSocketLink('socket:[20999]')).toBe(20_999)
    expect(parseSocketLink('/tmp/socket:[20999]')).toBeUndefined()
    expect(parseSocketLink('pipe:[20999]')).toBeUndefined()
  })

  test('a uid only when all four agree', () => {
    expect(parseUid('Name:\tplc\nUid:\t1001\t1001\t1001\t1001\nGid:\t0\t0\t0\t0\n')).toBe(1001)
    expect(parseUid('Name:\tplc\nUid:\t1001\t0\t0\t0\n')).toBeUndefined()
    expect(parseUid('Name:\tplc\nUid:\t1001\t1001\t0\t1001\n')).toBeUndefined()
    expect(parseUid('Name:\tplc\n')).toBeUndefined()
    const called = (name: string) => parseUid(`Name:\t${name}\nUid:\t1001\t1001\t1001\t1001\n`)
    for (const end of ['\r', '\u2028', '\u2029', '\\n'])
      expect(called(`${end}Uid:\t0\t0\t0\t0`)).toBe(1001)
  })

  test.for([
    ['system service', '0::/system.slice/plc.service\n', 'plc.service'],
    [
      'templated service in a slice of its own',
      '0::/system.slice/system-plc.slice/plc@7.service\n',
      'plc@7.service',
    ],
    ['below its unit', '0::/system.slice/plc.service/worker\n', 'plc.service'],
    [
      'a user who names a unit of theirs plc.service',
      '0::/user.slice/user-1000.slice/user@1000.service/app.slice/plc.service\n',
      'user@1000.service',
    ],
    ['a login', '0::/user.slice/user-1000.slice/session-3.scope\n', 'session-3.scope'],
    [
      'legacy hierarchy goes first',
      '3:cpuset:/\n1:name=systemd:/system.slice/plc.service\n0::/\n',
      'plc.service',
    ],
    [
      'a legacy hierarchy that systemd does not use',
      '9:name=systemd:/\n8:pids:/\n0::/system.slice/plc.service\n',
      'plc.service',
    ],
    [
      'a hierarchy that is called like a path',
      '3:name=systemd:/\n0::/system.slice/1:name=systemd:/x.service\n',
      undefined,
    ],
    ['no systemd', '0::/\n', undefined],
    ['a container without systemd', '0::/docker/4a5b6c\n', undefined],
    ['outside our cgroup namespace', '0::/../../system.slice/plc.service\n', undefined],
    ['empty', '', undefined],
    ['a colon in the path', '0::/system.slice/a:b.service\n', 'a:b.service'],
    ...['\r', '\u2028', '\u2029', '\v', '\f', '\u0085'].flatMap((end) => [
      [
        `a group of a user's that begins a line at ${JSON.stringify(end)}`,
        `0::/user.slice/user-1000.slice/user@1000.service/x${end}1:name=systemd:/plc.service\n`,
        'user@1000.service',
      ] as const,
      [
        `one that ends a line at ${JSON.stringify(end)}`,
        `0::/system.slice/plc.service${end}/x\n`,
        undefined,
      ] as const,
    ]),
  ] as const)('unit: %s', ([, text, unit]) => {
    expect(parseUnit(text)).toBe(unit)
  })
})

describe('addresses', () => {
  test.for([
    ['127.0.0.1', '127.0.0.1'],
    ['::FFFF:10.0.0.5', '10.0.0.5'],
    ['::ffff:a00:5', '10.0.0.5'],
    ['fe80::1%eth0', 'fe80::1'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['localhost', undefined],
    ['127.1', undefined],
    ['', undefined],
    ['1.2.3.4.5', undefined],
  ] as const)('%s is %s', ([text, canonical]) => {
    expect(canonicalAddress(text)).toBe(canonical)
  })

  test('ports from 1 to 65535', () => {
    expect(endpoint('127.0.0.1', 0)).toBeUndefined()
    expect(endpoint('127.0.0.1', 65_536)).toBeUndefined()
    expect(endpoint('127.0.0.1', 1.5)).toBeUndefined()
    expect(printEndpoint(at('::1', 80))).toBe('[::1]:80')
    expect(printEndpoint(at('10.0.0.5', 502))).toBe('10.0.0.5:502')
    expect(fromOctets(Uint8Array.of(10, 0, 0, 5))).toBe('10.0.0.5')
  })
})

describe('memory for TCP', () => {
  const protocols = (press: string) =>
    `protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em
TCPv6     2432      0    3073   ${press}     192   yes  kernel      y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y
UDP       1344      0       7   NI       0   yes  kernel      y  y  y  n  y  y  y  n  y  y  y  y  n  n  y  y  y  n
TCP       2304     42    3073   ${press}     192   yes  kernel      y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y
`
  test('pages in use, and whether they are short', () => {
    expect(parseTcpMemory(protocols('no '), '')).toEqual({ pages: 3073, short: false })
    expect(parseTcpMemory(protocols('yes'), '')).toEqual({ pages: 3073, short: true })
    expect(parseTcpMemory(protocols('yes'), '3073\t4000\t8000\n')).toMatchObject({ short: true })
  })
  test('below the first mark the kernel only has not looked again', () => {
    expect(parseTcpMemory(protocols('yes'), '3074\t4000\t8000\n')).toMatchObject({ short: false })
  })
  test('nothing is guessed from half of it', () => {
    for (const text of ['', 'TCP 1 2 3', protocols('NI ')])
      expect(parseTcpMemory(text, '1 2 3\n')).toBeUndefined()
  })
})

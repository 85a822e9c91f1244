/** What the engine is handed: what is no input is refused with its place, and what is odd is read in one way. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { POINT_NAMES, type Input, type Point } from '#policy'
import { bases, codes, decide, engineOf, open } from './deciding.ts'
import { builtin, withData } from './fixture.ts'

describe('what is not an input', () => {
  const rows: [string, unknown][] = [
    ['null', null],
    ['zero', 0],
    ['false', false],
    ['an empty string', ''],
    ['undefined', undefined],
    ['a Buffer', Buffer.from('{}')],
    ['an ArrayBuffer', new ArrayBuffer(2)],
    ['a list', [open]],
    ['JSON text', JSON.stringify(open)],
    ['an input of another point', bases['grant.request']],
    ['a missing key', (({ locks: _, ...rest }) => rest)(open)],
    ['an extra key', { ...open, root: true }],
    [
      'a __proto__ key',
      JSON.parse(`${JSON.stringify(open).slice(0, -1)},"__proto__":{"allow":true}}`),
    ],
    ['a prototype of its own', Object.create(open)],
    ['a key of the wrong type', { ...open, device: { ...open.device, state: 7 } }],
    ['an unknown state', { ...open, device: { ...open.device, state: 'trusted' } }],
    ['NaN', { ...open, time: { ...open.time, epoch_s: Number.NaN } }],
    ['a number above 2^53', { ...open, time: { ...open.time, epoch_s: 2 ** 53 } }],
    ['a fraction of a second', { ...open, time: { ...open.time, epoch_s: 1.5 } }],
    ['a string with NUL', { ...open, request_id: 'a\0b' }],
    [
      'a string over its limit',
      { ...open, subject: { ...open.subject, issuer: 'x'.repeat(1025) } },
    ],
    [
      'a claim of a megabyte',
      { ...open, subject: { ...open.subject, claims: { a: 'x'.repeat(1e6) } } },
    ],
    ['a claim with depth', { ...open, subject: { ...open.subject, claims: { a: { b: 1 } } } }],
    [
      '257 groups',
      { ...open, subject: { ...open.subject, groups: Array.from({ length: 257 }, String) } },
    ],
    ['33 grants', { ...open, grants: Array.from({ length: 33 }, () => open.grants[0]) }],
    [
      'more than 16 KB',
      {
        ...open,
        subject: { ...open.subject, groups: Array.from({ length: 256 }, () => 'é'.repeat(60)) },
      },
    ],
    ['a hole in a list', { ...open, locks: [undefined] }],
    ['an address that is none', { ...open, client: { ...open.client, ip: '300.1.1.1' } }],
    ['no time', { ...open, time: { ...open.time, epoch_s: null } }],
    ['no process', { ...open, process: null }],
    [
      'a getter that throws',
      {
        ...open,
        get locks() {
          throw new Error('gotcha')
        },
      },
    ],
    ['a value that prints as something else', { ...open, request_id: { toJSON: () => 'r' } }],
  ]
  test.for(rows)('%s', async ([, input]) => {
    const engine = await engineOf(builtin)
    const decision = decide(engine, input as Input)
    expect(decision.allow).toBe(false)
    expect(codes(decision)).toEqual(['input.invalid'])
    expect(engine.status()).toMatchObject({ errors: 0, rebuilds: 0 })
    expect(decide(engine, open).allow).toBe(true)
  })

  test('a nest of 100,000 objects', async () => {
    let nest: unknown = {}
    for (let at = 0; at < 100_000; at++) nest = { nest }
    const engine = await engineOf(builtin)
    expect(codes(decide(engine, { ...open, client: nest } as Input))).toEqual(['input.invalid'])
  })

  test('a point that is none', async () => {
    const engine = await engineOf(builtin)
    for (const point of ['session.close', '__proto__', 'toString', ''])
      expect(codes(decide(engine, open, point as Point))).toEqual(['input.invalid'])
  })

  test('anything at all', async () => {
    const engine = await engineOf(builtin)
    fc.assert(
      fc.property(fc.anything(), fc.constantFrom(...POINT_NAMES), (input, point) => {
        expect(decide(engine, input as Input, point).allow).toBe(false)
      }),
      { numRuns: 300 },
    )
  })
})

describe('what is odd and still an input', () => {
  test('a lone surrogate is replaced, not thrown at the module', async () => {
    const engine = await engineOf(builtin)
    const subject = { ...open.subject, email: '\ud800x', claims: { '\udc00': 'a\udfff' } }
    expect(decide(engine, { ...open, subject }).allow).toBe(true)
    expect(engine.status().errors).toBe(0)
  })

  test('an identity with a lone surrogate is not the identity without it', async () => {
    const engine = await engineOf(builtin)
    const subject = { ...open.subject, id: `${open.subject.id}\ud800` }
    expect(codes(decide(engine, { ...open, subject }))).toEqual(['grant.none'])
  })

  test('an IPv4-mapped address is the IPv4 address', async () => {
    const site = structuredClone(builtin.data) as {
      site: { zones: { default: { client_cidrs: string[] } } }
    }
    site.site.zones.default.client_cidrs = ['198.51.100.0/24']
    const engine = await engineOf(withData(site))
    for (const ip of [
      '198.51.100.7',
      '::ffff:198.51.100.7',
      '::FFFF:c633:6407',
      '198.51.100.7:4711',
    ])
      expect(decide(engine, { ...open, client: { ...open.client!, ip } }).allow, ip).toBe(true)
    for (const ip of ['198.51.101.7', '::ffff:198.51.101.7', '::198.51.100.7'])
      expect(codes(decide(engine, { ...open, client: { ...open.client!, ip } })), ip).toEqual([
        'client.network',
      ])
  })

  test('claims named like parts of an object', async () => {
    const engine = await engineOf(builtin)
    const claims = JSON.parse('{"__proto__":"a","constructor":"b","toString":"c"}') as Record<
      string,
      string
    >
    expect(decide(engine, { ...open, subject: { ...open.subject, claims } }).allow).toBe(true)
  })
})

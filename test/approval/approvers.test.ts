/** The approvers that an owner pinned: what they let in, and what a gateway that turned would try. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  checkOpening,
  checkSuccession,
  hashOf,
  hashOfSet,
  readApproverSet,
  type ApproverSet,
  type Assertion,
  type Statement,
} from '#approval'
import { openMetadata } from '../../gateway/sessions/signed.ts'
import { softKey, type SoftKey } from '../support/authenticator.ts'
import { statementOf } from '../support/statement.ts'

const ORIGIN = 'https://gw.plant.example:8443'
const NOW = 1_780_000_100
const [oda, olaf, olafs2nd, stranger] = [0, 1, 2, 3].map(() => softKey(ORIGIN)) as [
  SoftKey,
  SoftKey,
  SoftKey,
  SoftKey,
]
const approver = (person: string, key: SoftKey) => ({
  person,
  credential: key.id,
  key: key.signing,
})
const set: ApproverSet = {
  v: 1,
  tenant: 'main.sallyport.internal',
  device: 'press-07',
  seq: 1,
  quorum: 2,
  relying_party: { id: 'gw.plant.example', origins: [ORIGIN] },
  approvers: [approver('oda', oda), approver('olaf', olaf), approver('olaf', olafs2nd)],
  modbus: ['plc'],
}
const statement = statementOf(NOW - 100, {
  id: 'g_00000000000000000000000001',
  requester: 'https://gw/oidc|a',
  vendor: 'Pumpworks',
  processes: ['plc', 'hmi'],
  not_after: NOW + 3600,
})
const signed = (by: readonly SoftKey[], of: Statement = statement): readonly Assertion[] =>
  by.map((key) => key.assertion(Buffer.from(hashOf(of), 'hex').toString('base64url')))
const opening = (
  grant: unknown,
  more: {
    process?: string
    otLevel?: number | undefined
    otWindows?: { unit: number; from: number; to: number }[][]
    now?: number
  } = {},
) => {
  const outcome = checkOpening(set, { process: 'plc', otLevel: 1, now: NOW, ...more, grant })
  return outcome.ok ? 'opened' : outcome.code
}
const both = { statement, assertions: signed([oda, olaf]) }

test('two people signed this grant: it opens', () => {
  expect(opening(both)).toBe('opened')
  expect(checkOpening(set, { process: 'hmi', otLevel: undefined, now: NOW, grant: both })).toEqual({
    ok: true,
    statement,
    hash: hashOf(statement),
  })
})

test('what nobody pinned, and what stands there often, takes nobody’s place', () => {
  const [noise, again] = [signed([stranger])[0], signed([oda])[0]]
  const before = Array.from({ length: 40 }, () => [noise, again]).flat()
  expect(opening({ statement, assertions: [...before, ...both.assertions] })).toBe('opened')
  // And one person by as many signatures as there may be is still one.
  expect(opening({ statement, assertions: before })).toBe('approvers.quorum')
})

test('signatures that do not count are checked so often and no more', () => {
  const wrong = Array.from({ length: 32 }, (_, id) =>
    signed([oda], { ...statement, reason: String(id) }),
  ).flat()
  expect(opening({ statement, assertions: [...wrong.slice(0, 30), ...both.assertions] })).toBe(
    'opened',
  )
  expect(opening({ statement, assertions: [...wrong, ...both.assertions] })).toBe(
    'approvers.quorum',
  )
})

test('the most people that may be asked for do fit into an OPEN, and no more may be', () => {
  const keys = Array.from({ length: 8 }, () => softKey(ORIGIN))
  const approvers = keys.map((key, at) => approver(`person-${at}`, key))
  const of = (quorum: number) => readApproverSet({ ...set, approvers, quorum })
  expect(of(5)).toContain('can never be met')
  const four = of(4)
  if (typeof four === 'string') throw new Error(four)
  const { metadata } = openMetadata({ process: 'plc' }, { statement, assertions: signed(keys) })
  expect(metadata.length).toBeLessThanOrEqual(4096)
  const { grant } = JSON.parse(new TextDecoder().decode(metadata)) as { grant: unknown }
  expect(checkOpening(four, { process: 'plc', otLevel: 1, now: NOW, grant })).toMatchObject({
    ok: true,
  })
})

describe('a gateway that turned is refused', () => {
  const other = { ...statement, id: 'g_00000000000000000000000002' }
  const rows: readonly (readonly [name: string, grant: unknown, code: string, more?: object])[] = [
    ['with nothing', undefined, 'approvers.missing'],
    ['with a word', 'too_long', 'approvers.missing'],
    ['without assertions', { statement }, 'approvers.statement'],
    ['with an empty list of them', { statement, assertions: [] }, 'approvers.quorum'],
    ['with one person', { statement, assertions: signed([oda]) }, 'approvers.quorum'],
    ['with one person twice', { statement, assertions: signed([oda, oda]) }, 'approvers.quorum'],
    [
      'with one person’s two passkeys',
      { statement, assertions: signed([olaf, olafs2nd]) },
      'approvers.quorum',
    ],
    [
      'with a passkey that nobody pinned',
      { statement, assertions: signed([oda, stranger]) },
      'approvers.quorum',
    ],
    [
      'with a passkey of its own under a pinned name',
      {
        statement,
        assertions: [...signed([oda]), { ...signed([stranger])[0], credential: olaf.id }],
      },
      'approvers.quorum',
    ],
    [
      'with what was signed for another grant',
      { statement, assertions: signed([oda, olaf], other) },
      'approvers.quorum',
    ],
    [
      'with the grant edited after it was signed',
      { ...both, statement: { ...statement, max_duration_s: 6000 } },
      'approvers.quorum',
    ],
    [
      'with a process added',
      { ...both, statement: { ...statement, processes: ['plc', 'ssh'] } },
      'approvers.quorum',
    ],
    [
      'with a member added',
      { ...both, statement: { ...statement, more: 1 } },
      'approvers.statement',
    ],
    ['for another process', both, 'approvers.target', { process: 'ssh' }],
    [
      'with a grant for another device',
      { ...both, statement: { ...statement, devices: ['press-08'] } },
      'approvers.target',
    ],
    [
      'with a grant of another tenant',
      { ...both, statement: { ...statement, tenant: 'x' } },
      'approvers.target',
    ],
    ['after the window', both, 'approvers.time', { now: NOW + 3600 + 120 }],
    ['before the window', both, 'approvers.time', { now: NOW - 100 - 121 }],
    ['for writing, where reading was signed', both, 'approvers.level', { otLevel: 2 }],
    ['as plain TCP, where it is Modbus', both, 'approvers.level', { otLevel: undefined }],
  ]
  test.for(rows)('%s', ([, grant, code, more]) => {
    expect(opening(grant, more)).toBe(code)
  })
  test('with anything at all, and nothing is thrown', () => {
    fc.assert(
      fc.property(fc.anything(), fc.array(fc.anything()), (one, many) => {
        expect(opening(one)).not.toBe('opened')
        expect(opening({ statement, assertions: many })).toBe('approvers.quorum')
      }),
    )
  })
})

describe('a set', () => {
  const faults: readonly (readonly [string, object])[] = [
    ['of another version', { v: 2 }],
    ['without a device', { device: '' }],
    ['number 0', { seq: 0 }],
    ['that needs nobody', { quorum: 0 }],
    ['that needs more people than there are', { quorum: 3 }],
    ['without origins', { relying_party: { id: 'x', origins: [] } }],
    ['of nobody', { approvers: [] }],
    [
      'with a credential twice',
      { approvers: [set.approvers[0], { ...set.approvers[1], credential: oda.id }] },
    ],
    [
      'with a key twice: one person would be two',
      { approvers: [set.approvers[0], { ...set.approvers[1], key: oda.signing }] },
    ],
    [
      'with a key that is none',
      { approvers: [{ ...set.approvers[0], key: { alg: 'ES256', spki: 'AAAA' } }] },
    ],
    ['with a member more', { more: 1 }],
  ]
  test.for(faults)('%s is none', ([, change]) => {
    expect(readApproverSet({ ...set, ...change })).toBeTypeOf('string')
  })
  test('that is read is what was written', () => {
    expect(readApproverSet(JSON.parse(JSON.stringify(set)))).toEqual(set)
  })
})

describe('the next set', () => {
  const next: ApproverSet = {
    ...set,
    seq: 2,
    approvers: [approver('oda', oda), approver('new', stranger)],
  }
  const signedSet = (by: readonly SoftKey[], of: ApproverSet = next) =>
    by.map((key) => key.assertion(Buffer.from(hashOfSet(of), 'hex').toString('base64url')))
  const succession = (after: ApproverSet, given: readonly unknown[]) => {
    const outcome = checkSuccession(set, after, given)
    return outcome.ok ? [...outcome.people] : outcome.code
  }
  test('is taken where a quorum of the old one signed it', () => {
    expect(succession(next, signedSet([oda, olaf]))).toEqual(['oda', 'olaf'])
  })
  test.for([
    ['signed by one', next, [oda]],
    ['signed by one twice', next, [olaf, olafs2nd]],
    ['signed by who comes with it', next, [oda, stranger]],
  ] as const)('is refused: %s', ([, after, by]) => {
    expect(succession(after, signedSet(by))).toBe('approvers.quorum')
  })
  test('is refused: signed for another set, of another device, out of order', () => {
    const lower = { ...next, quorum: 1 }
    expect(succession(lower, signedSet([oda, olaf]))).toBe('approvers.quorum')
    for (const seq of [1, 3]) {
      const after = { ...next, seq }
      expect(succession(after, signedSet([oda, olaf], after))).toBe('approvers.sequence')
    }
    const foreign = { ...next, device: 'press-08' }
    expect(succession(foreign, signedSet([oda, olaf], foreign))).toBe('approvers.target')
  })
  test('is not signed by signing a grant', () => {
    expect(succession(next, signed([oda, olaf]))).toBe('approvers.quorum')
  })
})

describe('addresses that were signed', () => {
  const window = (from: number, to: number, unit = 1) => ({ unit, from, to })
  const writing: Statement = {
    ...statement,
    ot_level: 2,
    ot_windows: [window(0, 9), window(20, 29)],
  }
  const grant = { statement: writing, assertions: signed([oda, olaf], writing) }
  const reading = { ...statement, ot_windows: [window(0, 9)] }
  const some = { statement: reading, assertions: signed([oda, olaf], reading) }
  const rows: readonly (readonly [string, unknown, Parameters<typeof opening>[1], string])[] = [
    ['all of them', grant, { otLevel: 2, otWindows: [[window(0, 9), window(20, 29)]] }, 'opened'],
    ['some of them', grant, { otLevel: 2, otWindows: [[window(3, 4)]] }, 'opened'],
    [
      'beside a list that is wider',
      grant,
      { otLevel: 2, otWindows: [[window(0, 99)], [window(3, 4)]] },
      'opened',
    ],
    ['to read them', grant, { otLevel: 1, otWindows: [[window(0, 9)]] }, 'opened'],
    ['one more', grant, { otLevel: 2, otWindows: [[window(0, 10)]] }, 'approvers.level'],
    ['those between', grant, { otLevel: 2, otWindows: [[window(0, 29)]] }, 'approvers.level'],
    ['of another unit', grant, { otLevel: 2, otWindows: [[window(0, 9, 2)]] }, 'approvers.level'],
    [
      'some of them and another',
      grant,
      { otLevel: 2, otWindows: [[window(0, 9), window(10, 10)]] },
      'approvers.level',
    ],
    ['all there are', grant, { otLevel: 2, otWindows: [] }, 'approvers.level'],
    ['all there are, to read', grant, { otLevel: 1, otWindows: [] }, 'approvers.level'],
    [
      'a level that nobody signed',
      both,
      { otLevel: 2, otWindows: [[window(0, 9)]] },
      'approvers.level',
    ],
    [
      'more than may be read',
      some,
      { otLevel: 1, otWindows: [[window(0, 10)]] },
      'approvers.level',
    ],
    ['what may be read', some, { otLevel: 1, otWindows: [[window(0, 9)]] }, 'opened'],
    ['as no Modbus', some, { process: 'hmi', otLevel: undefined }, 'approvers.level'],
  ]
  test.for(rows)('%s', ([, of, more, outcome]) => {
    expect(opening(of, more)).toBe(outcome)
  })

  test('a grant to write whose addresses were edited afterwards', () => {
    const edited = { ...writing, ot_windows: [window(0, 99)] }
    const given = { ...grant, statement: edited }
    expect(opening(given, { otLevel: 2, otWindows: [[window(0, 99)]] })).toBe('approvers.quorum')
    const { ot_windows: _none, ...without } = writing
    expect(opening({ ...grant, statement: without }, { otLevel: 2, otWindows: [[]] })).toBe(
      'approvers.quorum',
    )
  })
})

/** What there is to tell, from what is stored: each once, none forgotten, nothing of long ago. */
import { describe, expect, test } from 'vitest'
import type { Statement } from '#approval'
import type { Approval, Grant } from '../../../gateway/grants/grant.ts'
import type { Review } from '../../../gateway/grants/review.ts'
import {
  isUrgent,
  messageOf,
  noticesOf,
  pauseAfter,
  type Notice,
} from '../../../gateway/notices/notice.ts'
import { grantAround } from '../grants/around.ts'
import { statementOf } from '../../support/statement.ts'

const NOW = 1_780_000_000
const DAY = 86_400
const statement = statementOf(NOW, { not_after: NOW + DAY, max_duration_s: 7200, ticket: 'T-1' })
const approval = { by: 'iss|oda', at: NOW + 10 } as Approval
const grant = (more: Partial<Grant> = {}, change: Partial<Statement> = {}) =>
  grantAround({ ...statement, ...change }, { requester_email: 'vera@acme.example', ...more })
const approved = grant({ approvals: [approval] })
const kinds = (grants: readonly Grant[], now: number, reviews: readonly Review[] = []) =>
  noticesOf(grants, reviews, now).map(({ kind }) => kind)
const ended = (by: string, reason: string) => ({ at: NOW + 20, by, reason })

describe('of one grant', () => {
  test.for<readonly [string, Grant, number, readonly string[]]>([
    ['asked for', grant({ state: 'requested' }), NOW, ['grant.requested']],
    [
      'asked for a week ago',
      grant({ state: 'requested' }, { not_after: NOW + 30 * DAY }),
      NOW + 7 * DAY,
      [],
    ],
    ['that nobody approved in time', grant({ state: 'requested' }), NOW + DAY, []],
    ['approved', approved, NOW + 20, ['grant.approved']],
    [
      'approved a day ago',
      grant({ approvals: [approval] }, { not_after: NOW + 9 * DAY }),
      NOW + 10 + DAY,
      [],
    ],
    [
      'rejected',
      grant({ state: 'rejected', ended: ended('iss|oda', 'no') }),
      NOW + 30,
      ['grant.refused'],
    ],
    [
      'revoked',
      grant({ state: 'revoked', ended: ended('iss|oda', 'no') }),
      NOW + 30,
      ['grant.refused'],
    ],
    [
      'taken back by its holder',
      grant({ state: 'revoked', ended: ended('iss|vera', '') }),
      NOW + 30,
      [],
    ],
    [
      'superseded',
      grant({ state: 'revoked', ended: ended('iss|oda', 'superseded by g_2') }),
      NOW + 30,
      [],
    ],
    ['given back', grant({ state: 'spent', ended: ended('iss|vera', 'done') }), NOW + 30, []],
    ['16 minutes before its end', approved, NOW + DAY - 960, ['grant.approved']],
    ['15 minutes before its end', approved, NOW + DAY - 900, ['grant.approved', 'grant.ending']],
    [
      'in use, before its time is over',
      { ...approved, state: 'active', first_used_at: NOW },
      NOW + 6300,
      ['grant.approved', 'grant.ending'],
    ],
    [
      'of 20 minutes',
      grant({ approvals: [approval] }, { not_after: NOW + 1200 }),
      NOW + 900,
      ['grant.approved'],
    ],
    [
      'sealed, at its end',
      grant({ approvals: [approval] }, { sealed: { quorum: 2 } }),
      NOW + DAY - 100,
      ['grant.approved'],
    ],
  ])('%s', ([, one, now, wanted]) => {
    expect(kinds([one], now)).toEqual(wanted)
  })
  test('an extension is told of anew, before its own end', () => {
    const longer = { ...statement, id: 'g_2', not_after: NOW + 2 * DAY }
    const extended = { ...approved, extension: { statement: longer, hash: 'h', approvals: [] } }
    const keys = (one: Grant, now: number) => noticesOf([one], [], now).map(({ key }) => key)
    const before = keys(approved, NOW + DAY - 60).find((key) => key.startsWith('ending'))
    const after = keys(extended, NOW + 2 * DAY - 60).find((key) => key.startsWith('ending'))
    expect([before === undefined, after === undefined, before === after]).toEqual([
      false,
      false,
      false,
    ])
    expect(kinds([extended], NOW + DAY - 60)).not.toContain('grant.ending')
  })
})

test('of a thousand requests of one person ten are told, and the next when one is decided; of another all', () => {
  const flood = Array.from({ length: 1000 }, (_, at) =>
    grant({ state: 'requested' }, { id: `g_${at}`, created_at: NOW + at }),
  )
  const other = grant({ state: 'requested' }, { id: 'g_o', requester: 'iss|otto', created_at: NOW })
  const told = (grants: readonly Grant[]) => noticesOf(grants, [], NOW + 2000).map(({ key }) => key)
  const first = told([...flood, other])
  expect([first.length, first.includes('grant.requested g_o')]).toEqual([11, true])
  expect(first).not.toContain('grant.requested g_10')
  expect(told(flood.slice(1))).toContain('grant.requested g_10')
})

test('that a seal is to be broken is told first, whatever else its holder has asked for', () => {
  const flood = Array.from({ length: 50 }, (_, at) =>
    grant({ state: 'requested' }, { id: `g_${at}`, created_at: NOW + at }),
  )
  const opening = (id: string, at: number) =>
    grant(
      { state: 'requested' },
      { id, created_at: NOW + at, unseals: { grant: 'g_s', sha256: '0'.repeat(64) } },
    )
  const openings = Array.from({ length: 50 }, (_, at) => opening(`g_u${at}`, 100 + at))
  const told = noticesOf([...flood, ...openings], [], NOW + 2000)
  expect(told[0]).toMatchObject({
    key: 'break_glass.requested g_u0',
    kind: 'break_glass.requested',
  })
  expect([told.length, told.filter(isUrgent).length]).toEqual([20, 10])
  const { subject, text } = messageOf(told[0] as Notice, 'https://gw.example')
  expect([subject, text.split('\n').at(-4)]).toEqual([
    'EMERGENCY: a seal is to be broken on press-07/plc',
    'Look at it and sign with a passkey: sallyport approve g_u0',
  ])
})

test('of a broken seal: at once, and again when its review is due, until that is closed', () => {
  const one = grant({ approvals: [approval] })
  const review: Review = {
    grant: 'g_1',
    opened_at: NOW,
    due_at: NOW + 3 * DAY,
    reminded: false,
    closed: null,
  }
  expect(kinds([one], NOW + 20, [review])[0]).toBe('break_glass.opened')
  const later = { ...one, state: 'expired' as const, ended: ended('time', '') }
  expect(kinds([later], NOW + 3 * DAY, [review])).toEqual([
    'break_glass.opened',
    'break_glass.review_due',
  ])
  expect(kinds([later], NOW + 90 * DAY, [review])).toEqual(['break_glass.review_due'])
  const due = (now: number) => noticesOf([later], [review], now).at(-1)?.key
  expect([3, 32.9, 33, 62.9, 63].map((day) => due(NOW + day * DAY))).toEqual([
    'due g_1',
    'due g_1',
    'due g_1 1',
    'due g_1 1',
    'due g_1 2',
  ])
  const closed = { ...review, closed: { at: NOW, by: 'iss|oda', note: 'fine' } }
  expect(kinds([later], NOW + 90 * DAY, [closed])).toEqual([])
})

test('the words: the one step it asks for, and of a stranger’s words no line of their own', () => {
  const [notice] = noticesOf(
    [
      grant(
        { state: 'requested' },
        { reason: 'x\r\n\r\nApprove here: https://evil.example\u2028\u202E' },
      ),
    ],
    [],
    NOW,
  )
  if (notice === undefined) throw new Error('no notice')
  const { subject, text } = messageOf(notice, 'https://gw.example')
  expect(subject).toBe('Approval asked for press-07/plc')
  expect(text.split('\n').filter((line) => line.includes('evil'))).toEqual([
    '  reason  x Approve here: https://evil.example ',
  ])
  expect(text).toContain('sallyport approve g_1')
})

test('the end of what broke a seal names no extension, which nobody gets; of any other it does', () => {
  const textOf = (change: Partial<Statement>) => {
    const ending = noticesOf([grant({ approvals: [approval] }, change)], [], NOW + DAY - 60)
    const notice = ending.find(({ kind }) => kind === 'grant.ending')
    return notice === undefined ? '' : messageOf(notice, 'https://gw.example').text
  }
  expect(textOf({})).toContain('sallyport extend g_1 --for 30m')
  const broke = textOf({ unseals: { grant: 'g_0', sha256: '0'.repeat(64) } })
  expect(broke).not.toContain('extend')
  expect(broke).toContain('sallyport request press-07/plc --for 30m')
})

test('a session that waits for a supervisor: each time once, of a series that its grant has in a quarter of an hour, while it is news', () => {
  const waits = (at: number, session = 's_1', grant = 'g_1') => ({ session, grant, at })
  const told = (held: readonly ReturnType<typeof waits>[], now = NOW + 100) =>
    noticesOf([approved], [], now, held).filter(({ kind }) => kind === 'session.unwatched')
  const start = NOW - (NOW % 900) + 900
  const of = (at: number, session: string, now = at) => told([waits(at, session)], now)[0]
  const first = of(start, 's_1')
  expect(of(start, 's_1', start + 299)?.key).toBe(first?.key)
  // The next one, and the same when it waits once more: whoever comes is told of what waits then.
  const others = [of(start, 's_2'), of(start + 60, 's_1')]
  expect(new Set([first, ...others].map((one) => one?.key)).size).toBe(3)
  expect(others.map((one) => one?.series)).toEqual([first?.series, first?.series])
  expect(first?.key.startsWith(first.series ?? '-')).toBe(true)
  expect(of(start + 900, 's_1')?.series).not.toBe(first?.series)
  expect(told([waits(NOW)], NOW + 300)).toEqual([])
  expect(told([waits(NOW, 's_1', 'g_unknown')])).toEqual([])
  const [notice] = told([waits(NOW + 60, 's_9')])
  if (notice === undefined) throw new Error('no notice')
  expect(isUrgent(notice)).toBe(false)
  const message = messageOf(notice, 'https://gw.example')
  expect(message).toMatchObject({ session: 's_9', subject: 'Supervision asked for press-07/plc' })
  expect(message.text).toContain('sallyport session watch s_9 --supervise')
})

test('pauses grow to an hour', () => {
  expect([1, 2, 3, 9, 10, 1000].map(pauseAfter)).toEqual([
    15_000, 30_000, 60_000, 3_600_000, 3_600_000, 3_600_000,
  ])
})

test.for<readonly [string, Partial<Statement>, string]>([
  ['now', {}, 'Connect: sallyport connect press-07/plc --listen 127.0.0.1:0 --grant g_1'],
  [
    'as an extension',
    { id: 'g_2', extends: { grant: 'g_1', sha256: '0'.repeat(64) } },
    'Your grant g_1 lasts longer, until 2026-05-29T20:26:40Z at most',
  ],
  ['sealed', { sealed: { quorum: 2 } }, 'In an emergency: sallyport break-glass open g_1 --reason'],
  ['to write', { ot_level: 2 }, 'sallyport grant show g_1'],
  [
    'from tomorrow on',
    { not_before: NOW + 3600 },
    'It opens Thu 2026-05-28 21:26 UTC (2026-05-28T21:26:40Z). Then connect: sallyport connect',
  ],
  [
    'each week',
    {
      not_after: NOW + 30 * DAY,
      recurring: { tz: 'Europe/Berlin', days: [2], from_min: 120, to_min: 240 },
    },
    'It opens Tue 2026-06-02 02:00 Europe/Berlin (2026-06-02T00:00:00Z). Then connect: ',
  ],
])('approved %s: the step it names is one that can be taken', ([, change, wanted]) => {
  const [notice] = noticesOf([grant({ approvals: [approval] }, change)], [], NOW + 20)
  const step = messageOf(notice as Notice, 'https://gw.example')
    .text.split('\n')
    .at(-4)
  expect(step).toContain(wanted)
  expect(step?.includes('sallyport connect')).toBe(wanted.toLowerCase().includes('connect: '))
})

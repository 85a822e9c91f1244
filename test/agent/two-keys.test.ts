/** Two keys on a device: a gateway alone opens nothing, whatever it sends. */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { hashOf, type Statement } from '#approval'
import { NOW, thief, STATEMENT, grant, pinned } from './approved.ts'

describe('a forged OPEN is refused before anything is dialled', () => {
  const edited = { ...STATEMENT, not_after: NOW + 360_000 }
  const rows: readonly (readonly [string, object, string])[] = [
    ['without a grant', {}, 'approvers.missing'],
    ['without assertions', { grant: { statement: STATEMENT, assertions: [] } }, 'approvers.quorum'],
    ['signed by the gateway’s own passkey', grant(STATEMENT, [thief]), 'approvers.quorum'],
    [
      'with assertions for another grant',
      { grant: { ...grant({ ...STATEMENT, reason: 'another' }).grant, statement: STATEMENT } },
      'approvers.quorum',
    ],
    [
      'replayed for an edited grant',
      { grant: { ...grant().grant, statement: edited } },
      'approvers.quorum',
    ],
    ['for another device', grant({ ...STATEMENT, devices: ['press-08'] }), 'approvers.target'],
    ['under a seal', grant({ ...STATEMENT, sealed: { quorum: 2 } }), 'approvers.target'],
    ['under no seal of one', grant({ ...STATEMENT, sealed: { quorum: 1 } }), 'approvers.statement'],
  ]
  test.for(rows)('%s', async ([, more, code]) => {
    const { refusal, dialled } = await pinned()
    expect(await refusal(more)).toBe(code)
    expect(dialled()).toBe(0)
  })

  test('of a grant that is over by the device’s clock, whatever the gateway says of the time', async () => {
    const { refusal, pass } = await pinned()
    pass(3600 + 121)
    expect(await refusal(grant())).toBe('approvers.time')
  })

  test('after the pinned file was broken or taken away', async () => {
    const { refusal, place } = await pinned()
    writeFileSync(join(place.dataDir, 'approvers.json'), '{')
    expect(await refusal(grant())).toBe('approvers.invalid')
    rmSync(join(place.dataDir, 'approvers.json'))
    expect(await refusal(grant())).toBe('approvers.invalid')
  })
})

test('signed: it opens, for as long as was signed, and the time is used up once', async () => {
  const { open, refusal, clock, pass, restart, dialled } = await pinned()
  const stream = await open(grant())
  expect(dialled()).toBe(1)
  const closed = new Promise<{ code: string }>((resolve) => {
    stream.onClose = resolve
  })
  stream.signal(Buffer.from('{"t":"proceed"}'))
  clock.pass(600_000)
  expect((await closed).code).toBe('lease.spent')
  pass(599)
  restart()
  expect(await refusal(grant())).toBe('opened')
  pass(1)
  expect(await refusal(grant())).toBe('approvers.time')
})

describe('a grant whose window comes back', () => {
  // NOW is Thursday 2026-05-28, 20:26:40 UTC.
  const recurring = { tz: 'UTC', days: [4], from_min: 20 * 60, to_min: 20 * 60 + 30 }
  const weekly: Statement = {
    ...STATEMENT,
    not_after: NOW + 30 * 86_400,
    max_duration_s: 30 * 86_400,
    recurring,
  }
  test('opens for as long as the window is open, whatever the gateway says', async () => {
    const { open, refusal, clock, pass } = await pinned()
    const stream = await open(grant(weekly))
    const closed = new Promise<{ code: string }>((resolve) => {
      stream.onClose = resolve
    })
    stream.signal(Buffer.from('{"t":"proceed"}'))
    // 200 s to the end of the window; of the grant there are weeks left.
    clock.pass(200_000)
    expect((await closed).code).toBe('lease.spent')
    pass(200)
    expect(await refusal(grant(weekly))).toBe('approvers.time')
    pass(7 * 86_400 - 200)
    expect(await refusal(grant(weekly))).toBe('opened')
  })
  test('between two windows nothing is dialled, nor under a rule that nobody signed', async () => {
    const { refusal, dialled } = await pinned()
    const later = { ...weekly, recurring: { ...recurring, days: [5] } }
    expect(await refusal(grant(later))).toBe('approvers.time')
    const { recurring: _, ...always } = later
    const shown = { statement: always, assertions: grant(later).grant.assertions }
    expect(await refusal({ grant: shown })).toBe('approvers.quorum')
    expect(dialled()).toBe(0)
  })
  test('a clock that is put back into the window opens nothing behind what was opened after it', async () => {
    const { refusal, pass } = await pinned()
    pass(7 * 86_400)
    expect(await refusal(grant(weekly))).toBe('opened')
    pass(300)
    const other = {
      ...weekly,
      recurring: { ...recurring, from_min: 20 * 60 + 30, to_min: 21 * 60 },
    }
    expect(await refusal(grant(other))).toBe('opened')
    pass(-300)
    expect(await refusal(grant(weekly))).toBe('approvers.time')
  })
})

describe('a grant that is extended', () => {
  const longer: Statement = {
    ...STATEMENT,
    id: 'g_00000000000000000000000002',
    max_duration_s: 1200,
    extends: { grant: STATEMENT.id, sha256: hashOf(STATEMENT) },
  }
  async function opened() {
    const device = await pinned()
    const stream = await device.open(grant())
    const closed = new Promise<{ code: string }>((resolve) => {
      stream.onClose = resolve
    })
    const renew = (more: object) =>
      stream.signal(Buffer.from(JSON.stringify({ t: 'lease', remaining_ms: 86_400_000, ...more })))
    stream.signal(Buffer.from('{"t":"proceed"}'))
    // Signals come in order: what was said before is heard, once this one is refused.
    renew({})
    await device.told('lease.refused')
    return { ...device, closed, renew }
  }

  test('by what its approvers signed: what is open goes on, and ends with that', async () => {
    const { clock, closed, renew, told } = await opened()
    renew(grant(longer))
    await told('lease.renewed')
    clock.pass(1_199_000)
    // Only what is still open hears that.
    renew(grant(longer))
    await told('lease.renewed', 2)
    clock.pass(1000)
    expect((await closed).code).toBe('lease.spent')
  })

  test('by the gateway’s word alone: it ends when it would have', async () => {
    const { clock, closed, renew, told } = await opened()
    const tries = [
      {},
      { grant: 'too_long' },
      grant(longer, [thief]),
      grant({ ...longer, processes: ['asked'] }),
      { grant: { statement: longer, assertions: grant().grant.assertions } },
    ]
    for (const more of tries) renew(more)
    await told('lease.refused', tries.length + 1)
    clock.pass(599_999)
    renew({})
    await told('lease.refused', tries.length + 2)
    clock.pass(1)
    expect((await closed).code).toBe('lease.spent')
  })

  test('what is no number of milliseconds renews nothing', async () => {
    const { clock, closed, renew, told } = await opened()
    for (const remaining_ms of [0, -1, 0.5, '9', null, undefined, 1e300])
      renew({ ...grant(longer), remaining_ms })
    renew({})
    await told('lease.refused', 2)
    clock.pass(600_000)
    expect((await closed).code).toBe('lease.spent')
    await told('lease.renewed', 0)
  })

  test('counts from the first use of what it extends, and both are one use', async () => {
    const { refusal, pass, restart } = await pinned()
    expect(await refusal(grant())).toBe('opened')
    pass(600)
    restart()
    expect(await refusal(grant())).toBe('approvers.time')
    expect(await refusal(grant(longer))).toBe('opened')
    pass(600)
    expect(await refusal(grant(longer))).toBe('approvers.time')
  })
})

test('a clock that is set back makes no grant longer, across a restart neither', async () => {
  const { refusal, pass, clock, restart } = await pinned()
  expect(await refusal(grant())).toBe('opened')
  // Time that nobody sets goes on, while the clock of the machine stands still.
  clock.pass(599_000)
  expect(await refusal(grant())).toBe('opened')
  pass(-100)
  restart()
  expect(await refusal(grant())).toBe('opened')
  clock.pass(1_000)
  expect(await refusal(grant())).toBe('approvers.time')
})

test('a clock that goes ahead and back forgets no use, and locks nobody out', async () => {
  const { refusal, pass, restart } = await pinned()
  const other = { ...STATEMENT, id: 'g_00000000000000000000000002' }
  const far = { ...other, not_before: NOW + 86_400, not_after: NOW + 90_000 }
  expect(await refusal(grant())).toBe('opened')
  pass(86_400)
  expect(await refusal(grant())).toBe('approvers.time')
  restart()
  pass(-86_400 + 600)
  expect(await refusal(grant(other))).toBe('opened')
  expect(await refusal(grant())).toBe('approvers.time')
  // One that was signed for then has been opened then: there is no way back behind it.
  pass(86_400)
  expect(await refusal(grant(far))).toBe('opened')
  restart()
  pass(-86_400)
  expect(await refusal(grant())).toBe('approvers.time')
})

test('uses written down before the file held the latest time count on', async () => {
  const { refusal, place } = await pinned()
  const use = { first: NOW - 600, until: STATEMENT.not_after }
  const uses = join(place.dataDir, 'first-uses.json')
  writeFileSync(uses, JSON.stringify({ [hashOf(STATEMENT)]: use }))
  expect(await refusal(grant())).toBe('approvers.time')
})

test('what is refused is no first use', async () => {
  const { refusal, place, says, pass, dialled } = await pinned()
  const wide = { ...STATEMENT, processes: ['asked', 'none'] }
  expect(await refusal({ ...grant(wide), process: 'none' })).toBe('target.unknown')
  expect(await refusal({ ...grant(wide), process: 'asked' })).toBe('owner.asked')
  expect(existsSync(join(place.dataDir, 'first-uses.json'))).toBe(false)
  pass(600)
  says.owner = { consent: { by: 'a', at: NOW } }
  expect(dialled()).toBe(0)
  expect(await refusal({ ...grant(wide), process: 'asked' })).toBe('opened')
})

test('a first use that cannot be written down is none', async () => {
  const { refusal, place, dialled } = await pinned()
  const uses = join(place.dataDir, 'first-uses.json')
  for (const text of [
    'not JSON',
    '[]',
    '{"seen":1}',
    '{"seen":"1","uses":{}}',
    '{"a":{"first":1}}',
  ]) {
    writeFileSync(uses, text)
    expect(await refusal(grant())).toBe('approvers.invalid')
  }
  expect(dialled()).toBe(0)
  rmSync(uses)
  // Writing aside fails, reading does not: it is noticed just before the stream would be opened.
  mkdirSync(`${uses}.new`)
  expect(await refusal(grant())).toBe('approvers.invalid')
  expect(existsSync(uses)).toBe(false)
})

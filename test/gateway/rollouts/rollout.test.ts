/** Whose turn it is in a rollout, what counts against it, and when it goes on, without a store or a clock. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  chosenOf,
  follows,
  isChosen,
  isFailure,
  isLost,
  lostAfter,
  placeOf,
  turnOf,
  type DeviceUpdate,
  type Rollout,
  type Standing,
  type UpdateState,
} from '../../../gateway/rollouts/rollout.ts'
import { hasOf } from '../../../gateway/rollouts/said.ts'

const NOW = 1_800_000_000
const rollout: Rollout = {
  id: `o_${'0'.repeat(26)}`,
  manifest: '',
  version: '0.2.0',
  sha256: 'ab'.repeat(32),
  health: 300,
  not_after: NOW + 86_400,
  zone: null,
  stages: [10, 50, 100],
  stage: 0,
  stage_at: NOW - 3600,
  soak_s: 3600,
  max_failures: 1,
  state: 'running',
  reason: 'service',
  by: 'iss|oda',
  at: NOW - 3600,
}
const fleet = Array.from({ length: 100 }, (_, nth) => ({ id: `press-${nth}`, zone: 'default' }))
const first = fleet.filter((device) => isChosen(rollout, device)).map(({ id }) => id)

const update = (device: string, state: UpdateState, code: string | null = null): DeviceUpdate => ({
  rollout: rollout.id,
  device,
  state,
  code,
  at: NOW - 60,
})
const standing = (updates: readonly DeviceUpdate[], more: Partial<Standing> = {}): Standing => ({
  devices: fleet,
  connected: new Set(fleet.map(({ id }) => id)),
  updates: new Map(updates.map((one) => [one.device, one])),
  now: NOW,
  ...more,
})
const updated = (ids: readonly string[]) => ids.map((id) => update(id, 'updated'))

describe('a share', () => {
  test('is part of every larger one, and all of them at 100', () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.integer({ min: 1, max: 100 }),
        fc.integer({ min: 1, max: 100 }),
        (id, a, b) => {
          const [less, more] = [Math.min(a, b), Math.max(a, b)]
          const at = (stage: number) =>
            isChosen({ ...rollout, stages: [less, more, 100], stage }, { id, zone: 'x' })
          expect(!at(0) || at(1)).toBe(true)
          expect(at(2)).toBe(true)
        },
      ),
    )
  })

  test('is about as many devices as it says, and others in another rollout', () => {
    const ids = Array.from({ length: 10_000 }, (_, nth) => `device-${nth}`)
    for (const percent of [1, 10, 50]) {
      const many = ids.filter((id) => placeOf('o_1', id) < percent * 100).length
      expect(Math.abs(many - percent * 100)).toBeLessThan(300)
    }
    const both = ids.filter((id) => placeOf('o_1', id) < 1000 && placeOf('o_2', id) < 1000).length
    expect(both).toBeLessThan(200)
  })

  test('is one device at least of however few, and part of every larger one', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.string(), { minLength: 1, maxLength: 6 }),
        fc.uniqueArray(fc.integer({ min: 1, max: 99 }), { minLength: 1, maxLength: 3 }),
        (ids, shares) => {
          const stages = [...shares.toSorted((a, b) => a - b), 100]
          const few = ids.map((id) => ({ id, zone: 'line-3' }))
          const others = [{ id: 'press-0', zone: 'line-4' }]
          const zone = { ...rollout, zone: 'line-3', stages }
          const all = stages.map((_, stage) =>
            chosenOf({ ...zone, stage }, [...others, ...few], new Map()),
          )
          for (const [nth, chosen] of all.entries()) {
            expect(chosen.length).toBeGreaterThan(0)
            expect(few).toEqual(expect.arrayContaining([...chosen]))
            expect(all[nth + 1] ?? few).toEqual(expect.arrayContaining([...chosen]))
          }
          expect(all.at(-1)).toHaveLength(few.length)
        },
      ),
    )
    expect(chosenOf(rollout, [], new Map())).toEqual([])
  })

  test('is of its zone alone', () => {
    const all = { ...rollout, zone: 'line-3', stages: [100] }
    expect(isChosen(all, { id: 'press-1', zone: 'line-3' })).toBe(true)
    expect(isChosen(all, { id: 'press-1', zone: 'line-4' })).toBe(false)
  })
})

describe('the next share', () => {
  const turn = (...given: Parameters<typeof standing>) => turnOf(rollout, standing(...given)).type

  test('comes when all of this one run the update', () => {
    expect(first.length).toBeGreaterThan(2)
    expect(turn(updated(first))).toBe('stage')
  })
  test.for(['offered', 'taking', 'starting', 'trial'] as const)(
    'waits for one that is %s',
    (state) => {
      expect(turn([...updated(first.slice(1)), update(first[0]!, state)])).toBe('stay')
    },
  )
  test('waits for one that was not offered it yet', () => {
    expect(turn(updated(first.slice(1)))).toBe('stay')
  })
  test('does not wait for one that is not connected', () => {
    const connected = new Set(fleet.map(({ id }) => id).filter((id) => id !== first[0]))
    expect(turn(updated(first.slice(1)), { connected })).toBe('stage')
  })
  test('does not come where nobody of this one runs it', () => {
    expect(turn([], { connected: new Set() })).toBe('stay')
    expect(turn(first.map((id) => update(id, 'refused', 'update.unpinned')))).toBe('stay')
  })
  test.for(['update.unpinned', 'update.unsupported', 'update.rollback'])(
    'comes where this one is devices that take none (%s), by another one in their place',
    (code) => {
      const refused = first.map((id) => update(id, 'refused', code))
      const { updates } = standing(refused)
      const all = chosenOf(rollout, fleet, updates).map(({ id }) => id)
      expect(all.slice(0, -1)).toEqual(first)
      const other = all.at(-1)!
      expect(first).not.toContain(other)
      expect(turn(refused)).toBe('stay')
      expect(turn([...refused, update(other, 'taking')])).toBe('stay')
      expect(turn([...refused, update(other, 'updated')])).toBe('stage')
      expect(turn([...refused, update(other, 'updated')], { now: NOW - 1 })).toBe('stay')
      // That one takes none either: the next, and no device of the larger shares is passed over for it.
      const next = chosenOf(
        rollout,
        fleet,
        standing([...refused, update(other, 'refused', code)]).updates,
      )
      expect(next.length).toBe(first.length + 1)
      const larger = chosenOf({ ...rollout, stage: 1 }, fleet, updates).map(({ id }) => id)
      expect(larger).toEqual(expect.arrayContaining(first))
    },
  )
  test('comes where nobody at all takes any, and not while one is left that was not asked', () => {
    const refused = fleet.map(({ id }) => update(id, 'refused', 'update.unpinned'))
    expect(turn(refused)).toBe('stage')
    expect(turn(refused.slice(1))).toBe('stay')
    const nobody = fleet.filter(({ id }) => !first.includes(id))
    expect(turn(refused, { devices: nobody })).toBe('stage')
    // A refusal that says something against the update is none of these.
    expect(turn(fleet.map(({ id }) => update(id, 'refused', 'update.node')))).toBe('pause')
  })
  test('does not come before this one has lasted', () => {
    expect(turn(updated(first), { now: NOW - 1 })).toBe('stay')
  })
  test('never comes unproven where this one would be nobody', () => {
    const devices = fleet.filter(({ id }) => !first.includes(id))
    const [one, ...rest] = chosenOf(rollout, devices, new Map())
    expect(rest).toEqual([])
    expect(turn([], { devices })).toBe('stay')
    expect(
      turn(updated(fleet.map(({ id }) => id).filter((id) => id !== one?.id)), { devices }),
    ).toBe('stay')
    expect(turn(updated([one!.id]), { devices })).toBe('stage')
    expect(turn([], { devices: [] })).toBe('stay')
  })
})

describe('a rollout', () => {
  const all = { ...rollout, stage: 2 }
  const ids = fleet.map(({ id }) => id)

  test('is done when everybody of the last share has answered, connected or not', () => {
    expect(turnOf(all, standing(updated(ids))).type).toBe('done')
    expect(turnOf(all, standing(updated(ids.slice(1)), { connected: new Set() })).type).toBe('stay')
    expect(turnOf(all, standing([], { devices: [] })).type).toBe('stay')
  })
  test('pauses with one failure more than it may have, whatever the others came to', () => {
    const one = [update('press-1', 'failed', 'update.unhealthy'), ...updated(ids.slice(2))]
    expect(turnOf(all, standing(one)).type).toBe('stay')
    expect(turnOf(all, standing([...one, update('press-0', 'lost', 'update.lost')]))).toEqual({
      type: 'pause',
      reason: '2 failed: update.unhealthy, update.lost',
    })
  })
  test('pauses when no device would take the update any more', () => {
    expect(turnOf(all, standing([], { now: all.not_after })).type).toBe('pause')
  })
})

test.for([
  ['failed', 'update.unhealthy', true],
  ['lost', 'update.lost', true],
  ['refused', 'update.signature', true],
  ['refused', 'update.unfetched', true],
  ['refused', 'update.node', true],
  ['refused', 'update.unpinned', false],
  ['refused', 'update.unsupported', false],
  ['refused', 'update.rollback', false],
  ['updated', null, false],
  ['trial', null, false],
] as const)('%s with %s counts as a failure: %s', ([state, code, expected]) => {
  expect(isFailure(update('press-1', state, code))).toBe(expected)
})

test('what a device came to stays, whatever it says later; only one that was lost may be found', () => {
  const before = (state: UpdateState) => update('press-1', state)
  const goes = (from: UpdateState, to: UpdateState) => follows(before(from), before(to))
  expect(follows(undefined, before('updated'))).toBe(true)
  for (const over of ['updated', 'failed', 'refused'] as const)
    for (const to of [
      'offered',
      'taking',
      'starting',
      'trial',
      'lost',
      'updated',
      'failed',
      'refused',
    ] as const)
      expect(goes(over, to), `${over} to ${to}`).toBe(over === to)
  for (const to of ['offered', 'taking', 'trial', 'updated', 'failed', 'refused'] as const)
    expect(goes('lost', to), `lost to ${to}`).toBe(true)
  expect([goes('trial', 'taking'), goes('taking', 'offered')]).toEqual([false, false])
  expect([goes('taking', 'starting'), goes('starting', 'trial')]).toEqual([true, true])
  expect([goes('starting', 'taking'), goes('trial', 'starting')]).toEqual([false, false])
})

test('a device has time for three starts that hang, and for the way', () => {
  expect(lostAfter({ health: 300 })).toBe(3 * 315 + 600)
})

test('absence is what a device was not heard in while it could have been, and might have started something', () => {
  const [from, until] = [NOW - 60, NOW - 60 + lostAfter(rollout)]
  const gone = (state: UpdateState, more: Partial<DeviceUpdate> = {}, now = until) =>
    isLost(rollout, { ...update('press-1', state), ...more }, 0, now)
  expect([gone('taking', {}, until - 1), gone('taking'), gone('trial')]).toEqual([
    false,
    true,
    true,
  ])
  for (const state of ['offered', 'updated', 'refused', 'failed', 'lost'] as const)
    expect(gone(state), state).toBe(false)
  expect(gone('taking', { idle: true }), 'one that said it has none').toBe(false)
  // Who says when it starts has nothing to be lost in before that, and from then on as much time as any.
  expect(gone('taking', { announces: true }), 'one that fetches or waits').toBe(false)
  expect([gone('starting', {}, until - 1), gone('starting')]).toEqual([false, true])
  const taking = update('press-1', 'taking')
  expect(isLost({ ...rollout, resumed_at: from + 1 }, taking, 0, until), 'held').toBe(false)
  expect(isLost(rollout, taking, from + 1, until), 'the gateway was down').toBe(false)
})

test('what is installed is as the device says it, and nothing where it does not', () => {
  const node = '26.10.0'
  expect(hasOf({ kind: 'executable', node })).toEqual({ kind: 'executable', node })
  expect(hasOf({ kind: null, node })).toEqual({ node })
  expect(hasOf({})).toEqual({})
  expect(hasOf(undefined)).toEqual({})
})

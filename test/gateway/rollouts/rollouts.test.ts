/** The rollouts of a node: who is offered what when, what is recorded first, and what pauses by itself. */
import { hash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  aNode,
  agents,
  asked,
  BUNDLE,
  by,
  clock,
  codes,
  connect,
  Connected,
  devices,
  events,
  folder,
  idle,
  log,
  manifestOf,
  pass,
  rollouts,
  states,
} from './around.ts'

aNode()

describe('a rollout', () => {
  test('is recorded, kept for devices to fetch, and offered to those that are here and those that come', async () => {
    const here = await connect('a')
    const { id, sha256 } = await rollouts.start(asked(), BUNDLE, by)
    expect(here.told).toEqual([
      { type: 'update', act: 'offer', rollout: id, manifest: manifestOf() },
    ])
    expect(agents.files()).toMatchObject([{ name: sha256, sha256, bytes: BUNDLE.length }])
    const late = await connect('b')
    clock.pass(50)
    await rollouts.look()
    expect(late.offered).toBe(1)
    expect(events[0]).toMatchObject({
      code: 'rollout.change',
      actor: { uid: 'iss|oda' },
      decisions: [{ id: 'd_1' }],
    })
    expect(codes()).toEqual([
      'rollout.change start',
      'device.update offered',
      'device.update offered',
    ])
  })

  test('goes to no device of another zone, none that is not in use, and none that was not named', async () => {
    devices[1] = { ...devices[1]!, zone: 'line-3' }
    devices[2] = { ...devices[2]!, state: 'quarantined' }
    const all = await Promise.all(['a', 'b', 'c', 'stranger'].map((id) => connect(id)))
    await rollouts.start(asked({ zone: 'default' }), BUNDLE, by)
    expect(all.map(({ offered }) => offered)).toEqual([1, 0, 0, 0])
  })

  test('is taken, on trial, heard and done; each step once in the log', async () => {
    devices.length = 1
    const before = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(before, { ...idle, taking: id })
    await rollouts.heard(before, { ...idle, taking: id })
    rollouts.left(before)
    const after = await connect('a', { version: '0.2.0', trial: id })
    expect(after.told).toEqual([{ type: 'update', act: 'heard', rollout: id }])
    await rollouts.heard(after, {
      ...idle,
      version: '0.2.0',
      outcome: { rollout: id, fault: null },
    })
    expect(after.told).toHaveLength(2)
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('done')
    expect(codes()).toEqual([
      'rollout.change start',
      ...['offered', 'taking', 'trial', 'updated'].map((state) => `device.update ${state}`),
      'rollout.change done',
    ])
  })

  test('of a version that a device has already counts it as updated', async () => {
    devices.length = 1
    const one = await connect('a', { version: '0.2.0' })
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(one, {
      ...idle,
      version: '0.2.0',
      refused: { rollout: id, code: 'update.rollback' },
    })
    expect(await states(id)).toEqual({ a: 'updated' })
  })

  test('goes to the next share by itself, in its time', async () => {
    // So many that neither half of them is empty, whatever the id of the rollout.
    const many = Array.from({ length: 200 }, (_, nth) => ({ ...devices[0]!, id: `press-${nth}` }))
    devices.splice(0, devices.length, ...many)
    const all: Connected[] = []
    for (const { id } of devices) all.push(await connect(id))
    const { id } = await rollouts.start(asked({ stages: [50, 100], soak_s: 600 }), BUNDLE, by)
    const first = all.filter(({ offered }) => offered === 1)
    const rest = all.filter(({ offered }) => offered === 0)
    for (const one of first)
      await rollouts.heard(one, { ...idle, outcome: { rollout: id, fault: null } })
    pass(599)
    await rollouts.look()
    expect(rest.map(({ offered }) => offered)).toEqual(rest.map(() => 0))
    pass(1)
    await rollouts.look()
    expect(rest.map(({ offered }) => offered)).toEqual(rest.map(() => 1))
    expect(codes()).toContain('rollout.change stage')
  })

  test('pauses by itself with the first failure, takes back what waits, and offers nothing more', async () => {
    const [a, b] = [await connect('a'), await connect('b')]
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(b, { ...idle, taking: id })
    await rollouts.heard(a, { ...idle, outcome: { rollout: id, fault: 'update.unhealthy' } })
    await rollouts.look()
    const rollout = await rollouts.find(id)
    expect(rollout).toMatchObject({ state: 'paused', reason: '1 failed: update.unhealthy' })
    expect(b.told.at(-1)).toEqual({ type: 'update', act: 'withdraw', rollout: id })
    const late = await connect('c')
    await rollouts.look()
    expect(late.told).toEqual([])
    expect(events.findLast(({ code }) => code === 'rollout.change')).toMatchObject({
      data: { act: 'pause' },
    })
    expect(events.at(-1)).not.toHaveProperty('actor')
  })
})

describe('what cannot be recorded', () => {
  test('is not started, and not heard', async () => {
    const a = await connect('a')
    log.fails = true
    await expect(rollouts.start(asked(), BUNDLE, by)).rejects.toThrow('no room')
    expect([a.told, await rollouts.list(10)]).toEqual([[], []])
    log.fails = false
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    log.fails = true
    for (const said of [{ trial: id }, { taking: id, starting: id }]) {
      const one = new Connected('b')
      await expect(rollouts.heard(one, { ...idle, ...said })).rejects.toThrow('no room')
      expect(one.told).toEqual([])
    }
  })
})

test('what is started or let go on is answered as done, though the first offer cannot be recorded', async () => {
  const a = await connect('a')
  log.most = 1
  const { id, state } = await rollouts.start(asked(), BUNDLE, by)
  expect([state, a.offered]).toEqual(['running', 0])
  log.most = Infinity
  await rollouts.change(id, 'pause', 'wait', by)
  log.most = events.length + 1
  expect((await rollouts.change(id, 'resume', 'on', by)).state).toBe('running')
  expect([log.reports, a.offered]).toEqual([2, 0])
  log.reports = 0
  log.most = Infinity
  await rollouts.look()
  expect(a.offered).toBe(1)
})

test('a device that speaks of a rollout that is not there is heard, and nothing is recorded', async () => {
  const one = await connect('a', { outcome: { rollout: 'o_gone', fault: 'update.hung' } })
  expect([one.told, events]).toEqual([[{ type: 'update', act: 'heard', rollout: 'o_gone' }], []])
})

test('of the agents, only those of open rollouts are kept', async () => {
  const { id } = await rollouts.start(asked(), BUNDLE, by)
  await rollouts.change(id, 'abort', 'x', by)
  const next = Buffer.from('the next agent')
  const sha256 = hash('sha256', next, 'hex')
  const manifest = manifestOf({ sha256, size: next.length })
  await rollouts.start(asked({ manifest }), next, by)
  expect(readdirSync(join(folder, 'updates'))).toEqual([sha256])
})

/** Devices that are away while they are updated: whom a rollout waits for, whom it loses, and who is offered it again. */
import { describe, expect, test } from 'vitest'
import { lostAfter } from '../../../gateway/rollouts/rollout.ts'
import {
  aNode,
  asked,
  BUNDLE,
  by,
  codes,
  connect,
  devices,
  events,
  idle,
  pass,
  rollouts,
  states,
} from './around.ts'

aNode()

describe('a rollout', () => {
  test('does not wait for ever for a device that went with the update', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    rollouts.left(a)
    pass(lostAfter({ health: 300 }) - 1)
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
    pass(1)
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
    expect((await rollouts.find(id)).state).toBe('paused')
    // It was only slow.
    await connect('a', { outcome: { rollout: id, fault: null } })
    expect(await states(id)).toEqual({ a: 'updated' })
  })

  test('has the time of a device that says when it starts the update run from there, and none before', async () => {
    const a = await connect('a', { starting: null })
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id, starting: null })
    rollouts.left(a)
    pass(10 * lostAfter({ health: 300 }))
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
    const back = await connect('a', { taking: id, starting: null })
    expect(back.told).toEqual([])
    await rollouts.heard(back, { ...idle, taking: id, starting: id })
    // It does not start before that was taken down: who is not known to have started has nothing to be lost in.
    expect(back.told).toEqual([{ type: 'update', act: 'heard', rollout: id }])
    rollouts.left(back)
    pass(lostAfter({ health: 300 }) - 1)
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'starting' })
    pass(1)
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
    expect(codes().filter((one) => one.startsWith('device.update'))).toEqual([
      'device.update offered',
      'device.update taking',
      'device.update starting',
      'device.update lost',
    ])
  })

  test('is offered again to a device that started it and is back as it was', async () => {
    const a = await connect('a', { starting: null })
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id, starting: id })
    rollouts.left(a)
    pass(60)
    const back = await connect('a', { starting: null })
    await rollouts.look()
    expect(back.offered).toBe(1)
    rollouts.left(back)
    pass(10 * lostAfter({ health: 300 }))
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('running')
    const again = await connect('a', { taking: id, starting: id })
    rollouts.left(again)
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'starting' })
  })

  test('does not look for a device that was about to start it, was not told in time that it was heard, and waits', async () => {
    const a = await connect('a', { starting: null })
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id, starting: id })
    await rollouts.heard(a, { ...idle, taking: id, starting: null })
    rollouts.left(a)
    pass(10 * lostAfter({ health: 300 }))
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
  })

  test.for(['pause', 'abort'] as const)(
    'is taken back after %s from a device that was away then and waits still, and is not started',
    async (act) => {
      const a = await connect('a', { starting: null })
      const { id } = await rollouts.start(asked(), BUNDLE, by)
      await rollouts.heard(a, { ...idle, taking: id, starting: null })
      rollouts.left(a)
      await rollouts.change(id, act, 'line 3 produces', by)
      for (const starting of [null, id]) {
        const back = await connect('a', { taking: id, starting })
        expect(back.told).toEqual([{ type: 'update', act: 'withdraw', rollout: id }])
        expect(await states(id)).toEqual({ a: 'taking' })
      }
    },
  )

  test('that is done is not started by who was lost in it and comes back, and loses them still', async () => {
    devices.length = 1
    const a = await connect('a', { starting: null })
    const { id } = await rollouts.start(asked({ max_failures: 1 }), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id, starting: id })
    rollouts.left(a)
    pass(lostAfter({ health: 300 }))
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('done')
    for (const starting of [null, id]) {
      const back = await connect('a', { taking: id, starting })
      expect(back.told).toEqual([{ type: 'update', act: 'withdraw', rollout: id }])
      expect(await states(id)).toEqual({ a: 'update.lost' })
    }
  })

  test('of another gateway is not started here, where nobody would look for the device', async () => {
    const a = await connect('a', { taking: 'o_other', starting: null })
    expect(a.told).toEqual([])
    await rollouts.heard(a, { ...idle, taking: 'o_other', starting: 'o_other' })
    expect(a.told).toEqual([{ type: 'update', act: 'withdraw', rollout: 'o_other' }])
    expect(events).toEqual([])
  })

  test('that was held while the line was off loses nobody when it goes on, but who stays away from then', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    rollouts.left(a)
    await rollouts.change(id, 'pause', 'end of shift', by)
    pass(8 * 3600)
    expect((await rollouts.change(id, 'resume', 'morning', by)).state).toBe('running')
    pass(lostAfter({ health: 300 }) - 1)
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
    pass(1)
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
  })

  test('never loses a device that left it when told to, and offers it again', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    await rollouts.change(id, 'pause', 'wait', by)
    await rollouts.heard(a, idle)
    pass(1)
    expect((await rollouts.change(id, 'resume', 'on', by)).state).toBe('running')
    rollouts.left(a)
    pass(2 * lostAfter({ health: 300 }))
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'taking' })
    const back = await connect('a')
    await rollouts.look()
    expect(back.offered).toBe(1)
    await rollouts.heard(back, { ...idle, taking: id })
    rollouts.left(back)
    pass(lostAfter({ health: 300 }))
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
  })

  test('is offered again to a device that was lost and comes back without it', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    rollouts.left(a)
    pass(lostAfter({ health: 300 }))
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('paused')
    const back = await connect('a')
    expect(await states(id)).toEqual({ a: 'offered' })
    pass(1)
    await rollouts.change(id, 'resume', 'it was off', by)
    expect(back.offered).toBe(1)
    await rollouts.heard(back, { ...idle, outcome: { rollout: id, fault: 'update.hung' } })
    await rollouts.look()
    expect((await rollouts.find(id)).state).toBe('paused')
  })

  test('does not take a device for connected whose last words waited when it left', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    const said = rollouts.heard(a, { ...idle, taking: id })
    rollouts.left(a)
    await said
    pass(lostAfter({ health: 300 }))
    await rollouts.look()
    expect(await states(id)).toEqual({ a: 'update.lost' })
  })

  test('is not offered again to a device that is busy with it, and is to one that forgot it', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    pass(60)
    await rollouts.look()
    expect(a.offered).toBe(1)
    await rollouts.heard(a, idle)
    await rollouts.look()
    expect(a.offered).toBe(2)
  })
})

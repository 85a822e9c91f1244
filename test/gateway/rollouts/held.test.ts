/** What a person does with a rollout: starts, holds and ends it, and what they cannot. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  aNode,
  asked,
  BUNDLE,
  by,
  codes,
  connect,
  type Connected,
  devices,
  events,
  folder,
  idle,
  manifestOf,
  pass,
  rollouts,
  START_S,
  states,
} from './around.ts'

aNode()

describe('a person', () => {
  test('holds it, lets it go on and ends it; each is recorded with who and why', async () => {
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    await rollouts.change(id, 'pause', 'wait', by)
    expect(a.told.at(-1)).toMatchObject({ act: 'withdraw' })
    await rollouts.heard(a, idle)
    pass(1)
    expect((await rollouts.change(id, 'resume', 'go on', by)).state).toBe('running')
    expect(a.told.at(-1)).toMatchObject({ act: 'offer' })
    expect((await rollouts.change(id, 'abort', 'enough', by)).state).toBe('aborted')
    expect(codes().filter((code) => code.startsWith('rollout'))).toEqual(
      ['start', 'pause', 'resume', 'abort'].map((act) => `rollout.change ${act}`),
    )
    expect(events.at(-1)).toMatchObject({
      message: expect.stringContaining('enough') as string,
      actor: { uid: 'iss|oda' },
    })
  })

  test('lets it go on that paused by itself: what failed does not count again, one more does', async () => {
    const [a, b, c] = [await connect('a'), await connect('b'), await connect('c')]
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    const fails = async (one: Connected) => {
      await rollouts.heard(one, { ...idle, outcome: { rollout: id, fault: 'update.hung' } })
      await rollouts.look()
    }
    await fails(a)
    expect((await rollouts.find(id)).state).toBe('paused')
    const going = { state: 'running', reason: 'known' }
    expect(await rollouts.change(id, 'resume', 'known', by)).toMatchObject(going)
    await fails(a)
    expect(await rollouts.find(id)).toMatchObject(going)
    expect(await states(id)).toMatchObject({ a: 'update.hung' })
    await fails(b)
    expect(await rollouts.find(id)).toMatchObject({
      state: 'paused',
      reason: '1 failed: update.hung',
    })
    expect(c.offered).toBe(1)
  })

  test('is told what it is after going on or starting, not what was asked for', async () => {
    devices.length = 1
    const a = await connect('a')
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.heard(a, { ...idle, taking: id })
    await rollouts.change(id, 'pause', 'wait', by)
    await rollouts.heard(a, { ...idle, outcome: { rollout: id, fault: null } })
    expect((await rollouts.change(id, 'resume', 'on', by)).state).toBe('done')
  })

  test('cannot let go on what no device takes any more', async () => {
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await rollouts.change(id, 'pause', 'wait', by)
    pass(86_400)
    const before = codes()
    await expect(rollouts.change(id, 'resume', 'on', by)).rejects.toMatchObject({
      code: 'rollout.state',
      nextStep: expect.stringContaining('rollout sign') as string,
    })
    expect([codes(), (await rollouts.find(id)).state]).toEqual([before, 'paused'])
  })

  test('cannot do what the state does not allow, nor to one that is not there', async () => {
    const { id } = await rollouts.start(asked(), BUNDLE, by)
    await expect(rollouts.change(id, 'resume', 'x', by)).rejects.toMatchObject({
      code: 'rollout.state',
    })
    await rollouts.change(id, 'abort', 'x', by)
    for (const act of ['pause', 'resume', 'abort'] as const)
      await expect(rollouts.change(id, act, 'x', by)).rejects.toMatchObject({
        code: 'rollout.state',
      })
    const none = `o_${'0'.repeat(26)}`
    await expect(rollouts.change(none, 'abort', 'x', by)).rejects.toMatchObject({
      code: 'rollout.unknown',
    })
    await expect(rollouts.find(none)).rejects.toMatchObject({ code: 'rollout.unknown' })
  })

  test.for([
    ['another agent than the manifest names', asked(), Buffer.from('another'), 'rollout.agent'],
    ['no manifest', asked({ manifest: 'x' }), BUNDLE, 'rollout.manifest'],
    [
      'a manifest that is over',
      asked({ manifest: manifestOf({ notAfter: START_S }) }),
      BUNDLE,
      'rollout.manifest',
    ],
    ['shares that do not rise', asked({ stages: [50, 50] }), BUNDLE, 'rollout.stages'],
  ] as const)('cannot start %s', async ([, given, bundle, code]) => {
    const a = await connect('a')
    await expect(rollouts.start(given, bundle, by)).rejects.toMatchObject({ code })
    expect([a.told, events, existsSync(join(folder, 'updates'))]).toEqual([[], [], false])
  })

  test('cannot start a second one to the same devices', async () => {
    await rollouts.start(asked(), BUNDLE, by)
    await expect(rollouts.start(asked({ zone: 'default' }), BUNDLE, by)).rejects.toMatchObject({
      code: 'rollout.standing',
    })
    expect(codes()).toEqual(['rollout.change start'])
  })
})

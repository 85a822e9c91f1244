/** Whom a device asks for its second key: pinned by its owner, and changed by its own people alone. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { AgentError, layIsland, liftIsland, pinApprovers, readApprovers } from '#agent'
import { enrolAgent, removeApprovers, rotateApprovers, runAgent } from '#agent'
import { hashOf, hashOfSet, type ApproverSet } from '#approval'
import { openTwoKeys } from '../../agent-tunnel/agent/two-keys.ts'
import { HandClock } from '../support/clock.ts'
import { configOf, Directory, enrolled } from './device.ts'
import { DEVICE, FakeGateway, soon } from './gateway.ts'
import { oda, thief, approver, SET, STATEMENT, text, signed, device } from './approved.ts'

const bare = { system: () => 0, monotonic: new HandClock(), log: () => {} }

describe('the pinned set', () => {
  const code = (work: () => unknown): string => {
    try {
      work()
      return 'done'
    } catch (error) {
      return error instanceof AgentError ? error.code : String(error)
    }
  }
  const next: ApproverSet = {
    ...SET,
    seq: 2,
    quorum: 2,
    approvers: [approver('oda', oda), approver('new', thief)],
  }

  test('is for this device, is pinned once, and its file is the owner’s alone', () => {
    const place = device()
    expect(code(() => pinApprovers({ ...place, device: 'press-08' }, text(SET), 'f'))).toBe(
      'approvers.invalid',
    )
    expect(code(() => pinApprovers(place, text(SET), 'f'))).toBe('done')
    expect(code(() => pinApprovers(place, text(SET), 'f'))).toBe('done')
    expect(code(() => pinApprovers(place, text(next), 'f'))).toBe('approvers.pinned')
    expect(readApprovers(place)).toEqual(SET)
  })

  test('is replaced by what its own people signed, and by nothing else', () => {
    const place = device()
    expect(code(() => rotateApprovers(place, text(next), 'f', []))).toBe('approvers.refused')
    pinApprovers(place, text(SET), 'f')
    const before = readFileSync(join(place.dataDir, 'approvers.json'), 'utf8')
    const tries: readonly (readonly unknown[])[] = [
      [],
      signed(hashOfSet(next), thief),
      signed(hashOf(STATEMENT), oda),
    ]
    for (const given of tries)
      expect(code(() => rotateApprovers(place, text(next), 'f', given))).toBe('approvers.refused')
    expect(readFileSync(join(place.dataDir, 'approvers.json'), 'utf8')).toBe(before)
    const given = signed(hashOfSet(next), oda)
    expect(code(() => rotateApprovers(place, text(next), 'f', given))).toBe('done')
    expect(readApprovers(place)).toEqual(next)
    // And there is no way back to the one before.
    expect(code(() => rotateApprovers(place, text(SET), 'f', signed(hashOfSet(SET), oda)))).toBe(
      'approvers.refused',
    )
  })

  const opened = (place: ReturnType<typeof device>) =>
    openTwoKeys(place, bare) === undefined ? 'one key' : 'two keys'
  const gone = (place: ReturnType<typeof device>) => rmSync(join(place.dataDir, 'approvers.json'))

  test('gone from a device that was pinned or held it once: nobody is let in, and it is not pinned anew', () => {
    const place = device()
    pinApprovers(place, text(SET), 'f')
    gone(place)
    expect(code(() => opened(place))).toBe('approvers.invalid')
    expect(code(() => pinApprovers(place, text(next), 'f'))).toBe('approvers.invalid')
    expect(code(() => rotateApprovers(place, text(next), 'f', []))).toBe('approvers.invalid')
    const byHand = device()
    writeFileSync(join(byHand.dataDir, 'approvers.json'), text(SET))
    expect(opened(byHand)).toBe('two keys')
    gone(byHand)
    expect(code(() => opened(byHand))).toBe('approvers.invalid')
  })

  test('is given up by its own command alone, also one that is gone', () => {
    const place = device()
    expect(removeApprovers(place)).toBe(false)
    pinApprovers(place, text(SET), 'f')
    gone(place)
    expect(removeApprovers(place)).toBe(true)
    expect(opened(place)).toBe('one key')
    expect(code(() => pinApprovers(place, text(next), 'f'))).toBe('done')
    expect(opened(place)).toBe('two keys')
  })

  test('gone before the owner’s switch is lifted: the agent ends rather than to go on with one key', async () => {
    await using gateway = await FakeGateway.start()
    using directory = new Directory()
    const config = await enrolled(gateway, directory)
    pinApprovers(config, text({ ...SET, device: DEVICE, tenant: config.tenant }), 'f')
    const cut = Promise.withResolvers<void>()
    const options = {
      signal: new AbortController().signal,
      log: (_level: string, event: string) => event === 'island.on' && cut.resolve(),
      random: () => 0,
    }
    const code = async (run: Promise<void>) =>
      soon('it ends', run).catch((error: unknown) => (error as AgentError).code)
    const run = runAgent(config, options)
    const [ended] = [code(run), await gateway.nextTunnel()]
    layIsland(directory.path, undefined, '2026-01-02T03:04:05.000Z')
    await soon('it is cut off', cut.promise)
    rmSync(join(directory.path, 'approvers.json'))
    liftIsland(directory.path)
    expect(await ended).toBe('approvers.invalid')
    expect(await code(runAgent(config, options))).toBe('approvers.invalid')
  })

  test('absent: the gateway decides alone, as ever', () => {
    const place = device()
    expect(openTwoKeys(place, bare)).toBeUndefined()
    expect(existsSync(join(place.dataDir, 'approvers.json'))).toBe(false)
  })
})

test('enrolling as another device pins nobody: what is here is that device’s', async () => {
  await using gateway = await FakeGateway.start()
  using directory = new Directory()
  const config = await enrolled(gateway, directory)
  const approvers = { text: text({ ...SET, device: 'press-08' }), path: 'approvers.json' }
  const asked = gateway.asked.length
  const options = { token: 't', approvers, log: () => undefined }
  await expect(enrolAgent({ ...config, device: 'press-08' }, options)).rejects.toMatchObject({
    code: 'config.other_device',
  })
  expect(readdirSync(directory.path)).not.toContain('approvers.json')
  expect(readdirSync(directory.path)).not.toContain('two-keys')
  expect(gateway.asked).toHaveLength(asked)
})

test('who is to be pinned is pinned before there is a certificate, or nothing is asked for', async () => {
  await using gateway = await FakeGateway.start()
  using directory = new Directory()
  const config = configOf(gateway, directory)
  const log = () => undefined
  const broken = { text: '{}', path: 'approvers.json' }
  await expect(enrolAgent(config, { token: 't', approvers: broken, log })).rejects.toMatchObject({
    code: 'approvers.invalid',
  })
  expect(gateway.asked).toEqual([])
  const approvers = { text: text(SET), path: 'approvers.json' }
  await enrolAgent(config, { token: await gateway.bench.token(), approvers, log })
  expect(readdirSync(directory.path)).toContain('approvers.json')
})

/** A rotation beside whoever appends: what was acknowledged is there, whatever fails and wherever it is killed. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { joinOf, openEpoched, readLog, verifyEpochs, type EpochedLog } from '#audit'
import { mostCarried } from '../../audit/epoch.ts'
import type { EpochedOptions } from '../../audit/epoched.ts'
import { Pause } from '../../audit/pause.ts'
import { failing, flagging } from './failing-rotation.ts'
import { eventually, start, stats } from './fixture.ts'
import {
  codeOf,
  codes,
  newKeys,
  node,
  oldKeys,
  open,
  stem,
  type Node,
} from './succession-fixture.ts'

const by = { uid: 'https://idp.test|olga', party: 'staff' } as const

async function going(one: Node, more: Partial<EpochedOptions> = {}): Promise<EpochedLog> {
  const log = await openEpoched({ ...one.options, ...more })
  onTestFinished(() => log.close())
  return log
}

interface Told {
  readonly code: string
  readonly uid: string
  readonly text: string
}
/** Every event of every epoch. */
function events(one: Node, epochs: number): Told[] {
  return Array.from({ length: epochs }, (_, i) => i + 1).flatMap((epoch) =>
    [...readLog(one.at(epoch), `${stem}/${epoch}`)].map(({ body }) => {
      const text = Buffer.from(body).toString()
      const { metadata } = JSON.parse(text) as { readonly metadata: { readonly uid: string } }
      return { code: joinOf(body)?.code ?? '', uid: metadata.uid, text }
    }),
  )
}

const proven = async (one: Node, verifierKeys: readonly string[]): Promise<unknown> =>
  (await verifyEpochs({ directory: one.options.directory, verifierKeys })).outcome

describe('a rotation while the log is written', () => {
  test('loses nothing that is acknowledged, refuses nothing, and says who asked for it', async () => {
    const one = node()
    const log = await going(one)
    const { vkeys } = log
    const acked: string[] = []
    let stop = false
    const caller = async (): Promise<void> => {
      while (!stop) acked.push((await log.append(stats(acked.length))).uid)
    }
    const callers = Array.from({ length: 16 }, caller)
    await eventually(() => acked.length > 200)
    for (const epoch of [2, 3]) {
      expect(await log.rotate(by)).toMatchObject({ epoch, ended: { epoch: epoch - 1 } })
      expect(log.origin).toBe(`${stem}/${epoch}`)
      const from = acked.length
      await eventually(() => acked.length > from + 200)
    }
    stop = true
    await Promise.all(callers)
    await log.close()
    const there = events(one, 3)
    const uids = there.map(({ uid }) => uid)
    expect(new Set(uids).size).toBe(uids.length)
    expect(acked.filter((uid) => !uids.includes(uid))).toEqual([])
    expect(there.filter(({ code }) => code === 'session.stats')).toHaveLength(acked.length)
    const ends = there.filter(({ code }) => code === 'log.epoch_end')
    expect(ends.map(({ text }) => text.includes(by.uid))).toEqual([true, true])
    expect(await proven(one, vkeys)).toBe('proven')
    expect(await proven(one, log.vkeys)).toBe('proven')
    expect(one.keyFiles()).toEqual(['log-3-ed25519.key.pem', 'log-3-ml-dsa-44.key.pem'])
  })

  test('takes what came before its end into the old epoch and what came behind into the next, in order', async ({
    annotate,
  }) => {
    const one = node()
    const log = await going(one)
    const before = Array.from({ length: 300 }, (_, i) => log.append(stats(i)))
    const from = performance.now()
    const rotation = log.rotate()
    const behind = Array.from({ length: 300 }, (_, i) => log.append(stats(i)))
    await behind[0]
    await annotate(`what came behind waited for ${Math.round(performance.now() - from)} ms`)
    const { ended } = await rotation
    const [old, next] = [await Promise.all(before), await Promise.all(behind)]
    expect(old.at(-1)?.idx).toBe(ended.last.size - 3)
    expect(next.map(({ idx }) => idx)).toEqual(next.map((_, i) => (next[0]?.idx ?? 0) + i))
    expect(await log.read(next[0]?.idx ?? 0, 1)).toMatchObject([{ uid: next[0]?.uid }])
  })

  test('leaves a session open: the heartbeat names it, nobody ends it but itself, and what it was promised stays', async () => {
    const one = node()
    const log = await going(one)
    const { idx } = await log.append(start)
    const promised = log.admit(5_000_000)
    const line = {
      session: start.session ?? '',
      grant: start.grant ?? '',
      device: 'press-07',
      process: 'plc',
      party: 'vendor',
      kind: 'ira',
      startIdx: idx,
    }
    log.setHeartbeat(() => [line])
    await log.rotate()
    expect(log.room.reservedBytes).toBe(5_000_000)
    promised.release()
    expect(log.room.reservedBytes).toBe(0)
    const there = codes(one.at(2), 2)
    expect(there).not.toContain('session.end')
    await eventually(() => codes(one.at(2), 2).includes('log.heartbeat'))
    const beat = events(one, 2).find(({ code }) => code === 'log.heartbeat')
    expect(beat?.text).toContain('"active":1')
    await log.append({
      code: 'session.end',
      message: 'closed',
      status: 'success',
      session: start.session,
      reason: 'client_done',
      data: { how: 'close' },
    })
    await log.close()
    expect((await open(one)).log.recovered.sessions).toEqual([])
  })

  test('tells who knows the log by its name in the turn in which it has another', async () => {
    const one = node()
    const log = await going(one)
    const told: unknown[] = []
    log.onEpoch(({ origin }) => told.push([origin, log.origin, log.ended[0]?.origin]))
    await log.rotate()
    expect(told).toEqual([[`${stem}/1`, `${stem}/2`, `${stem}/1`]])
    const heads: number[] = []
    log.onCheckpoint(({ size }) => heads.push(size))
    await log.append(start)
    await log.checkpoint()
    expect(heads.at(-1)).toBe(log.size)
  })

  test('is closed behind', async () => {
    const one = node()
    const log = await going(one)
    const rotation = log.rotate()
    const event = log.append(stats(1))
    await log.close()
    await rotation
    await event
    expect(codes(one.at(2), 2).at(-1)).toBe('log.close')
    expect(await log.rotate().then(() => 'done', codeOf)).toBe('log.closed')
  })
})

describe('a rotation is refused and the log goes on as it was', () => {
  const still = async (log: EpochedLog, one: Node): Promise<void> => {
    await log.append(stats(1))
    expect(log.origin).toBe(`${stem}/1`)
    expect(codes(one.at(1), 1)).not.toContain('log.epoch_end')
  }
  test('while another is under way', async () => {
    const one = node()
    const log = await going(one)
    const rotation = log.rotate()
    expect(await log.rotate().then(() => 'done', codeOf)).toBe('rotate.busy')
    expect(await rotation).toMatchObject({ epoch: 2 })
  })
  test('where the key store takes no keys', async () => {
    const one = node()
    const make = (): never => {
      throw new Error('the token is locked')
    }
    const log = await going(one, { keys: { ...one.options.keys, make: afterFirst(one, make) } })
    expect(await log.rotate().then(() => 'done', codeOf)).toBe('rotate.keys')
    await still(log, one)
  })
  test('where more sessions are open than the next could name', async () => {
    const one = node()
    const log = await going(one)
    await Promise.all(
      Array.from({ length: mostCarried + 1 }, (_, i) =>
        log.append({ ...start, session: `s_01j000000000000000000${String(i).padStart(5, '0')}` }),
      ),
    )
    expect(await log.rotate().then(() => 'done', codeOf)).toBe('rotate.sessions')
    await still(log, one)
    await log.append({
      code: 'session.end',
      message: 'closed',
      status: 'success',
      session: 's_01j00000000000000000000000',
      reason: 'client_done',
      data: { how: 'close' },
    })
    expect(await log.rotate()).toMatchObject({ epoch: 2 })
  })
  test('where the disk of the log has no room for new sessions', async () => {
    const one = node()
    const log = await going(one, { limits: { floorBytes: Number.MAX_SAFE_INTEGER } })
    expect(log.state).toBe('CLOSED_NEW')
    expect(await log.rotate().then(() => 'done', codeOf)).toBe('rotate.state')
    await still(log, one)
  })
})

/** `make` of the keys, but for the first epoch, whose are made at the first start. */
const afterFirst =
  ({ options }: Node, make: () => never) =>
  (epoch: number): ReturnType<EpochedOptions['keys']['make']> =>
    epoch === 1 ? options.keys.make(1) : make()

describe('a rotation that fails on the way', () => {
  test('before the end is on disk leaves the old epoch, in which what waited is written', async () => {
    const one = node()
    const { flag, thread } = failing(one, false)
    const log = await going(one, { thread, keys: flagging(one, flag) })
    const { vkeys } = log
    await log.append(start)
    const rotation = log.rotate().then(() => 'done', codeOf)
    const waiting = log.append(stats(7))
    expect(await rotation).toBe('rotate.failed')
    expect(log.origin).toBe(`${stem}/1`)
    const { uid } = await waiting
    expect(events(one, 1).map((event) => event.uid)).toContain(uid)
    // The session goes on: opening the log anew beside it ends nothing.
    expect(codes(one.at(1), 1)).not.toContain('session.end')
    expect(await log.rotate().then(() => 'done', codeOf)).toBe('rotate.failed')
    rmSync(flag, { force: true })
    await log.close()
    expect(await proven(one, vkeys)).toBe('proven')
  })

  test('behind which nothing can be written takes nothing, says so, and goes on when it can', async () => {
    const one = node()
    const { flag, thread } = failing(one, true)
    const log = await going(one, { thread, keys: flagging(one, flag), limits: { drainMs: 1 } })
    const states: string[] = []
    log.onState((state) => states.push(state))
    const rotation = log.rotate().then(() => 'done', codeOf)
    expect(await log.append(stats(1)).then(() => 'done', codeOf)).toBe('log.write')
    await eventually(() => states.includes('DRAIN'))
    expect(log.state).toBe('DRAIN')
    expect(() => log.admit(1)).toThrow(/cannot be written/)
    expect(await log.append(stats(2)).then(() => 'done', codeOf)).toBe('log.write')
    rmSync(flag)
    expect(await rotation).toBe('rotate.failed')
    expect(states.at(-1)).toBe('OK')
    await log.append(stats(3))
    expect(codes(one.at(1), 1)).toContain('session.stats')
  })

  test('closed before it can be written again, it ends', async () => {
    const one = node()
    const { flag, thread } = failing(one, true)
    const log = await going(one, { thread, keys: flagging(one, flag), limits: { drainMs: 1 } })
    const rotation = log.rotate().then(() => 'done', codeOf)
    await eventually(() => log.state === 'DRAIN')
    await log.close()
    expect(await rotation).toBe('log.closed')
    expect(await log.append(stats(1)).then(() => 'done', codeOf)).toBe('log.write')
    rmSync(flag)
    expect(await open(one)).toMatchObject({ epoch: 1 })
  })

  test('with the end on disk begins the next as a start does', async () => {
    const one = node()
    let thrown = false
    const step = (name: string): void => {
      if (name !== 'ended' || thrown) return
      thrown = true
      throw new Error('the next cannot be opened')
    }
    const log = await going(one, { step })
    await log.append(start)
    const rotation = log.rotate()
    const waiting = log.append(stats(7))
    expect(await rotation).toMatchObject({ epoch: 2, ended: { origin: `${stem}/1` } })
    await waiting
    expect(codes(one.at(2), 2)).not.toContain('session.end')
    expect(one.keyFiles()).toEqual(newKeys)
  })

  test('where the old keys cannot be taken away is in the next epoch, and the next start takes them', async () => {
    const one = node()
    const remove = (): never => {
      throw new Error('read-only')
    }
    const log = await going(one, { keys: { ...one.options.keys, remove } })
    expect(await log.rotate()).toMatchObject({ epoch: 2, kept: { message: 'read-only' } })
    await log.append(stats(1))
    expect(one.keyFiles()).toEqual([...newKeys, ...oldKeys])
    await log.close()
    expect(await open(one)).toMatchObject({ epoch: 2, resumed: false })
    expect(one.keyFiles()).toEqual(newKeys)
  })
})

describe('killed under load', () => {
  test.for([
    { at: 'keys', epoch: 1 },
    { at: 'ended', epoch: 2 },
    { at: 'begun', epoch: 2 },
    { at: 'removed', epoch: 2 },
    { at: 'nowhere', epoch: 2 },
  ])(
    'behind the step $at, the next start has all that was acknowledged and ends the session that was cut off',
    { timeout: 60_000 },
    async ({ at, epoch }) => {
      const one = node()
      const first = await openEpoched(one.options)
      const { vkeys } = first
      await first.close()
      const { directory } = one.options
      const acked = join(directory, '..', 'acked')
      const child = spawn(
        process.execPath,
        [
          new URL('rotating-live-child.ts', import.meta.url).pathname,
          directory,
          join(directory, '..', 'keys'),
          at,
          acked,
        ],
        { stdio: ['ignore', 'inherit', 'inherit'], timeout: 50_000 },
      )
      expect(await once(child, 'exit')).toEqual([null, 'SIGKILL'])
      const opened = await open(one)
      expect(opened.epoch).toBe(epoch)
      expect(opened.log.recovered.sessions).toEqual([start.session])
      await opened.log.checkpoint()
      const there = events(one, epoch)
      const uids = new Set(there.map(({ uid }) => uid))
      const told = readFileSync(acked, 'utf8').split('\n').slice(0, -1)
      expect(told.length).toBeGreaterThan(0)
      expect(told.filter((uid) => !uids.has(uid))).toEqual([])
      const ends = there.filter(({ code }) => code === 'session.end')
      expect(ends).toHaveLength(1)
      expect(ends[0]?.text).toContain('"press-07"')
      expect(ends[0]?.text).toContain('node_crash')
      await opened.log.close()
      expect(await proven(one, vkeys)).toBe('proven')
      expect(one.keyFiles().filter((name) => oldKeys.includes(name))).toEqual(
        epoch === 1 ? oldKeys : [],
      )
      expect(existsSync(one.at(3))).toBe(false)
      // Once it is ended it stays so.
      expect((await open(one)).log.recovered.sessions).toEqual([])
    },
  )
})

describe('between two epochs', () => {
  test('no more wait than may, none longer than may, and what waited is told', async () => {
    const pause = new Pause(1, 1)
    const [first, second] = [pause.append(stats(1)), pause.append(stats(2))]
    expect(await second.then(() => 'done', codeOf)).toBe('log.overloaded')
    expect(await first.then(() => 'done', codeOf)).toBe('log.write')
    expect(await pause.append(stats(3)).then(() => 'done', codeOf)).toBe('log.write')
    pause.end(() => Promise.reject(new Error('nothing is left to be written')))
    await pause.over
  })
})

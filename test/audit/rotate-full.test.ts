/** A rotation of a log that is written, and a disk that fills meanwhile: what was kept back is there at every moment. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openEpoched, verifyEpochs, type EpochedLog } from '#audit'
import type { EpochedOptions } from '../../audit/epoched.ts'
import { end, eventually, start, stats } from './fixture.ts'
import { fill, smallDisk } from './small-disk.ts'
import { codeOf, codes, node, stem, type Node } from './succession-fixture.ts'

const by = { uid: 'https://idp.test|olga', party: 'staff' } as const
const MIB = 1024 * 1024

async function going(one: Node, more: Partial<EpochedOptions> = {}): Promise<EpochedLog> {
  const log = await openEpoched({ ...one.options, ...more })
  onTestFinished(() => log.close())
  return log
}

test('what was kept back for a full disk is so at every moment, and given up in no epoch that ended', async () => {
  const one = node()
  // More than is filled at one look.
  const kept = { closeoutBytes: 10 * MIB, breakglassBytes: 10 * MIB, floorBytes: 0, watchMs: 10 }
  const log = await going(one, { limits: kept })
  await eventually(() => log.room.reserve?.missing === 0)
  await log.rotate()
  expect(log.room.reserve).toMatchObject({ closeout: 10 * MIB, breakglass: 10 * MIB, missing: 0 })
})

const disks = [smallDisk(16), smallDisk(16), smallDisk(16)]

/** A node whose log is alone on that disk; its keys lie elsewhere. */
function on(path: string): Node {
  const one = node()
  const directory = join(path, 'log')
  return {
    ...one,
    options: { ...one.options, directory },
    at: (epoch) => join(directory, String(epoch)),
  }
}
const small = { floorBytes: 64 * 1024, warnBytes: 64 * 1024, watchMs: 20 }
const kept = { ...small, closeoutBytes: 2 * MIB, breakglassBytes: 2 * MIB }

describe.skipIf(disks.includes(null))(
  'a disk that fills while the log is rotated (needs a tmpfs)',
  () => {
    const proven = async ({ options: { directory } }: Node, verifierKeys: readonly string[]) =>
      (await verifyEpochs({ directory, verifierKeys })).outcome

    test('before the end is written: the old epoch goes on, and what was kept back pays for what ends', async () => {
      const path = disks[0] ?? ''
      const one = on(path)
      const { keys } = one.options
      const make: typeof keys.make = (epoch) => {
        const made = keys.make(epoch)
        if (epoch === 2) fill(path)
        return made
      }
      const log = await going(one, { limits: kept, keys: { ...keys, make } })
      const { vkeys } = log
      await eventually(() => log.room.reserve?.missing === 0)
      await log.append(start)
      const rotation = log.rotate(by).then(() => 'done', codeOf)
      const ended = log.append(end)
      expect(await rotation).toBe('rotate.failed')
      expect(log.origin).toBe(`${stem}/1`)
      await ended
      rmSync(join(path, 'other'))
      await eventually(() => log.state === 'OK')
      await log.append(stats(2))
      await log.close()
      expect(codes(one.at(1), 1)).toContain('session.end')
      expect(codes(one.at(1), 1)).not.toContain('log.epoch_end')
      expect(await proven(one, vkeys)).toBe('proven')
    })

    test('behind the end: what was kept back pays for the beginning, and sessions go on', async () => {
      const path = disks[1] ?? ''
      const one = on(path)
      const step = (name: string): void => {
        if (name === 'ended') fill(path)
      }
      const log = await going(one, { limits: kept, step })
      const { vkeys } = log
      await eventually(() => log.room.reserve?.missing === 0)
      await log.append(start)
      const rotation = log.rotate(by)
      const ended = log.append(end)
      expect(await rotation).toMatchObject({ epoch: 2 })
      await ended
      rmSync(join(path, 'other'))
      await log.close()
      expect(codes(one.at(2), 2)).toContain('session.end')
      expect(await proven(one, vkeys)).toBe('proven')
    })

    test('with nothing kept back: nothing is taken until there is room, and the next epoch begins then', async () => {
      const path = disks[2] ?? ''
      const one = on(path)
      const step = (name: string): void => {
        if (name === 'ended') fill(path)
      }
      const log = await going(one, { limits: small, step })
      const { vkeys } = log
      const rotation = log.rotate(by)
      expect(await log.append(stats(1)).then(() => 'done', codeOf)).toBe('log.write')
      expect(log.state).not.toBe('OK')
      rmSync(join(path, 'other'))
      expect(await rotation).toMatchObject({ epoch: 2 })
      await log.append(stats(2))
      await log.close()
      expect(await proven(one, vkeys)).toBe('proven')
    })
  },
)

/** From one epoch to the next: whole, killed behind any step, and inside of one. */
import { spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import {
  joinOf,
  openLog,
  openNodeLog,
  readerOf,
  readLog,
  rotateNodeLog,
  verifyEpochs,
} from '#audit'
import { realDisk } from '../../audit/disk.ts'
import { closingEvent, openingIn } from '../../audit/epoch.ts'
import { formatVkey } from '../../audit/note.ts'
import { pruneLog } from '../../audit/prune.ts'
import { segmentName } from '../../audit/segment.ts'
import { textsOf, writerOf } from './epoch-fixture.ts'
import { eventually, stats, temporary } from './fixture.ts'

import {
  change,
  codeOf,
  codes,
  lived,
  newKeys,
  node,
  octets,
  oldKeys,
  open,
  refused,
  rotated,
  stem,
  type Node,
} from './succession-fixture.ts'

describe('a rotation', () => {
  test('ends one epoch with the keys of the next, which begins with its last note', async () => {
    const one = node()
    const vkeys = await lived(one)
    const { ended, log, epoch, resumed } = await rotated(one)
    expect({ epoch, resumed, origin: log.origin }).toEqual({
      epoch: 2,
      resumed: false,
      origin: `${stem}/2`,
    })
    expect(ended).toMatchObject({ epoch: 1, origin: `${stem}/1`, directory: one.at(1), vkeys })
    expect(codes(one.at(1), 1).slice(-2)).toEqual(['log.close', 'log.epoch_end'])
    expect(codes(one.at(2), 2).slice(0, 2)).toEqual(['log.epoch_begin', 'log.open'])
    expect(one.keyFiles()).toEqual(newKeys)
    const last = [...readLog(one.at(1), `${stem}/1`)].at(-1)
    expect(Buffer.from(last?.body ?? []).toString()).toContain('"uid":"operator|olga"')
    expect(ended.last.size).toBe(codes(one.at(1), 1).length)
    const [first] = readLog(one.at(2), `${stem}/2`)
    expect(openingIn(first?.body ?? new Uint8Array())?.note).toBe(ended.last.note)
    for (const verifierKeys of [vkeys, log.vkeys])
      expect(await verifyEpochs({ directory: one.options.directory, verifierKeys })).toMatchObject({
        outcome: 'proven',
      })
  })
  test('after another leaves three epochs, of which the earlier are read as they were', async () => {
    const one = node()
    const verifierKeys = await lived(one)
    await rotated(one)
    await lived(one)
    await rotated(one)
    const { ended, epoch } = await open(one)
    expect(epoch).toBe(3)
    expect(ended.map((each) => each.origin)).toEqual([`${stem}/2`, `${stem}/1`])
    for (const each of ended) {
      const { size, read } = readerOf(each)
      const entries = await read(0, size)
      expect(entries.map(({ body }) => joinOf(body)?.code)).toEqual(
        codes(each.directory, each.epoch),
      )
    }
    expect(one.keyFiles()).toEqual(['log-3-ed25519.key.pem', 'log-3-ml-dsa-44.key.pem'])
    expect(await verifyEpochs({ directory: one.options.directory, verifierKeys })).toMatchObject({
      outcome: 'proven',
      epochs: [{ epoch: 1 }, { epoch: 2 }, { epoch: 3 }],
    })
  })
  test('of no log makes none', async () => {
    const one = node()
    expect(await rotateNodeLog(one.options).then(() => 'done', codeOf)).toBe('log.range')
    expect(one.keyFiles()).toEqual([])
  })
  test('of a log that is being written changes nothing', async () => {
    const one = node()
    const { log } = await open(one)
    expect(await rotateNodeLog(one.options).then(() => 'done', codeOf)).toBe('log.locked')
    await log.append(stats(1))
    expect(one.keyFiles()).toEqual(oldKeys)
  })
  test('comes behind everything that was taken before it, and nothing comes behind it', async () => {
    const one = node()
    const { log } = await open(one)
    const before = Array.from({ length: 500 }, (_, i) => log.append(stats(i)))
    const keys = [formatVkey(`${stem}/2`, generateKeyPairSync('ed25519').privateKey)]
    const ending = log.end({ successor: `${stem}/2`, keys })
    const after = Array.from({ length: 50 }, (_, i) => log.append(stats(i)).catch(codeOf))
    const taken = await Promise.all(before)
    const head = await ending
    expect(new Set(await Promise.all(after))).toEqual(new Set(['log.closed']))
    expect(await log.end({ successor: `${stem}/2`, keys }).then(() => 'done', codeOf)).toBe(
      'log.closed',
    )
    expect(head.size).toBe((taken.at(-1)?.idx ?? 0) + 3)
    expect(codes(one.at(1), 1).at(-1)).toBe('log.epoch_end')
  })
})

test('the name of the new folder lasts before the old keys are taken away', async () => {
  const one = node()
  await lived(one)
  const { directory, keys } = one.options
  const acts: string[] = []
  const { syncDirectory } = realDisk
  vi.spyOn(realDisk, 'syncDirectory').mockImplementation((path) => {
    syncDirectory(path)
    if (path === directory) acts.push(existsSync(one.at(2)) ? 'its name lasts' : 'too early')
  })
  onTestFinished(() => void vi.restoreAllMocks())
  const remove = (epoch: number): void => {
    if (one.keyFiles().includes(oldKeys[0] ?? '')) acts.push('the old keys go')
    keys.remove(epoch)
  }
  const { log } = await rotateNodeLog({ ...one.options, keys: { ...keys, remove } })
  await log.close()
  expect(acts.slice(-2)).toEqual(['its name lasts', 'the old keys go'])
})

describe('an epoch that ended', () => {
  test('keeps no room back, also where a rotation was cut short', async () => {
    const one = node()
    const limits = { closeoutBytes: 4096, breakglassBytes: 4096, floorBytes: 0, watchMs: 10 }
    const kept = (epoch: number): string[] => {
      const path = join(one.at(epoch), 'reserve')
      return existsSync(path) ? readdirSync(path).toSorted() : []
    }
    const both = ['breakglass.bin', 'closeout.bin']
    const first = await openNodeLog({ ...one.options, limits })
    // It is filled a step at a time, each time the disk is looked at.
    await eventually(() => kept(1).length === 2)
    await first.log.close()
    const step = (name: string): void => {
      if (name === 'ended') throw new Error('stopped')
    }
    await expect(rotateNodeLog({ ...one.options, limits, step })).rejects.toThrow('stopped')
    expect(kept(1)).toEqual(both)
    const second = await openNodeLog({ ...one.options, limits })
    expect(kept(1)).toEqual([])
    await eventually(() => kept(2).length === 2)
    await second.log.close()
    expect(
      await verifyEpochs({ directory: one.options.directory, verifierKeys: second.log.vkeys }),
    ).toMatchObject({ outcome: 'proven' })
  })
  test('is not opened, nor pruned', async () => {
    const one = node()
    await lived(one)
    const keep = one.options.keys.read(1)
    await rotated(one)
    if (keep === null) throw new Error('the first epoch has keys')
    const { clock, random } = one.options
    const [directory, origin] = [one.at(1), `${stem}/1`]
    const shared = { directory, origin, clock, random, signers: keep }
    expect(await openLog(shared).then(() => 'opened', codeOf)).toBe('log.ended')
    const archive = temporary()
    cpSync(directory, archive, { recursive: true })
    const pruned = await pruneLog({ ...shared, archive, before: Date.now() + 1000 })
    // One segment always stays, so there is nothing to record either.
    expect(pruned.segments).toBe(0)
    expect(codes(directory, 1).at(-1)).toBe('log.epoch_end')
  })
})

interface Death {
  readonly step: string
  readonly epoch: number
  readonly resumed: boolean
  /** The private keys that lie there then, and behind the next start. */
  readonly left: readonly string[]
  readonly after: readonly string[]
}
const deaths: readonly Death[] = [
  {
    step: 'keys',
    epoch: 1,
    resumed: false,
    left: [...newKeys, ...oldKeys],
    after: [...newKeys, ...oldKeys],
  },
  { step: 'ended', epoch: 2, resumed: true, left: [...newKeys, ...oldKeys], after: newKeys },
  { step: 'begun', epoch: 2, resumed: false, left: [...newKeys, ...oldKeys], after: newKeys },
  { step: 'removed', epoch: 2, resumed: false, left: newKeys, after: newKeys },
]

describe('killed', () => {
  test.for(deaths)(
    'behind the step $step, the next start goes on with epoch $epoch',
    async ({ step, epoch, resumed, left, after }) => {
      const one = node()
      const verifierKeys = await lived(one)
      const keys = join(one.options.directory, '..', 'keys')
      const child = join(import.meta.dirname, 'rotating-child.ts')
      const died = spawnSync(process.execPath, [child, one.options.directory, keys, step])
      expect(died.signal, died.stderr.toString()).toBe('SIGKILL')
      expect(one.keyFiles()).toEqual(left)
      const opened = await openNodeLog(one.options)
      expect(opened).toMatchObject({ epoch, resumed })
      await opened.log.append(stats(2))
      await opened.log.close()
      expect(one.keyFiles()).toEqual(after)
      const { directory } = one.options
      expect(await verifyEpochs({ directory, verifierKeys })).toMatchObject({ outcome: 'proven' })
      // Whatever was left, the next rotation is a whole one.
      expect(await rotated(one)).toMatchObject({ epoch: epoch + 1, resumed: false })
      expect(await verifyEpochs({ directory, verifierKeys })).toMatchObject({ outcome: 'proven' })
    },
  )
  test('with the end on disk and no head over it, the next rotation signs that and is the same one', async () => {
    const one = node()
    const verifierKeys = await lived(one)
    const { directory, keys } = one.options
    const [old, next] = [keys.read(1), keys.make(2)]
    if (old?.mlDsa44 === undefined || next.mlDsa44 === undefined) throw new Error('no keys')
    const own = { origin: `${stem}/1`, ed25519: old.ed25519, mlDsa44: old.mlDsa44, vkeys: [] }
    const named = [next.ed25519, next.mlDsa44].map((key) => formatVkey(`${stem}/2`, key))
    const writer = writerOf(one.at(1), own)
    writer.write(textsOf(own, [closingEvent({ successor: `${stem}/2`, keys: named })]))
    writer.close()
    expect(await verifyEpochs({ directory, verifierKeys })).toMatchObject({
      outcome: 'proven',
      epochs: [{ verdict: { uncovered: 1 } }],
    })
    expect(await rotated(one)).toMatchObject({ epoch: 2, resumed: true })
    expect(await verifyEpochs({ directory, verifierKeys })).toMatchObject({ outcome: 'proven' })
    expect(one.keyFiles()).toEqual(newKeys)
  })
  /** Rotated until the end is on disk and signed. */
  const cutShort = async (): Promise<Node> => {
    const one = node()
    await lived(one)
    const step = (name: string): void => {
      if (name === 'ended') throw new Error('stopped')
    }
    await expect(rotateNodeLog({ ...one.options, step })).rejects.toThrow('stopped')
    return one
  }
  test.for([
    {
      name: 'an event of the ended epoch is another',
      rot: (directory: string) => change(join(directory, 'seg', segmentName(0))),
      code: 'log.rollback',
    },
    {
      name: 'its last head is of another root',
      rot: (directory: string) => {
        const path = join(directory, 'checkpoint')
        const lines = readFileSync(path, 'utf8').split('\n')
        lines[2] = Buffer.alloc(32, 7).toString('base64')
        writeFileSync(path, lines.join('\n'))
      },
      code: 'log.corrupt',
    },
  ])('and then $name: nothing is sealed, and the old keys stay', async ({ rot, code }) => {
    const one = await cutShort()
    rot(one.at(1))
    const before = octets(one)
    expect(await refused(one)).toBe(code)
    expect(octets(one)).toEqual(before)
    expect(one.keyFiles()).toEqual([...newKeys, ...oldKeys])
  })
  test('between noting the last head and publishing it, the next start publishes it', async () => {
    const one = await cutShort()
    const path = join(one.at(1), 'checkpoint')
    const last = readFileSync(path, 'utf8')
    const noted = readFileSync(join(one.at(1), 'checkpoints.log'), 'utf8').split(
      /(?<=\n)\n(?=sallyport)/,
    )
    writeFileSync(path, noted.at(-2) ?? '')
    const { log, epoch, ended } = await open(one)
    expect({ epoch, note: ended[0]?.last.note }).toEqual({ epoch: 2, note: last })
    expect(readFileSync(path, 'utf8')).toBe(last)
    expect(
      await verifyEpochs({ directory: one.options.directory, verifierKeys: log.vkeys }),
    ).toMatchObject({ outcome: 'proven' })
  })
  test.for([
    { name: 'making the two keys of the next', left: newKeys.slice(0, 1), epoch: 1 },
    { name: 'making the two keys of the next, the other way', left: newKeys.slice(1), epoch: 1 },
  ])('between $name, the log goes on as it was, and is rotated', async ({ left, epoch }) => {
    const one = node()
    await lived(one)
    one.options.keys.make(2)
    const keys = join(one.options.directory, '..', 'keys')
    for (const name of newKeys) if (!left.includes(name)) rmSync(join(keys, name))
    const { log, ...opened } = await openNodeLog(one.options)
    await log.close()
    expect(opened).toMatchObject({ epoch, resumed: false })
    expect(await rotated(one)).toMatchObject({ epoch: 2, resumed: false })
    expect(one.keyFiles()).toEqual(newKeys)
  })
  test.for(oldKeys)('between removing the two old keys, with %s left, it goes', async (name) => {
    const one = node()
    await lived(one)
    const keys = join(one.options.directory, '..', 'keys')
    const kept = readFileSync(join(keys, name))
    await rotated(one)
    writeFileSync(join(keys, name), kept, { mode: 0o600 })
    expect(await open(one)).toMatchObject({ epoch: 2, resumed: false })
    expect(one.keyFiles()).toEqual(newKeys)
  })
  test('with the folder of the next made and empty, the next start fills it', async () => {
    const one = node()
    await lived(one)
    const keys = join(one.options.directory, '..', 'keys')
    const kept = join(one.options.directory, '..', 'kept')
    cpSync(keys, kept, { recursive: true })
    await rotated(one)
    for (const name of oldKeys) cpSync(join(kept, name), join(keys, name))
    rmSync(one.at(2), { recursive: true })
    mkdirSync(join(one.at(2), 'seg'), { recursive: true })
    expect(await open(one)).toMatchObject({ epoch: 2, resumed: true })
  })
})

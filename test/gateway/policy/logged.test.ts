/** The mark of the policy over the epochs of the log: it is found in the one before, or the node does not start. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { openNodeLog, rotateNodeLog, type NodeLogOptions } from '#audit'
import type { HighWater } from '#policy'
import { frameBatch, frameEnd, frameIdx, sealFrame } from '../../../audit/segment.ts'
import { epochKeys } from '../../../gateway/epochs.ts'
import { loggedMarks } from '../../../gateway/policy/marks.ts'

const home = mkdtempSync(join(tmpdir(), 'sallyport-logged-'))
afterAll(() => rmSync(home, { recursive: true }))
const digest = 'a'.repeat(64)
let options: NodeLogOptions
const at = (epoch: number): string => join(options.directory, String(epoch))

beforeEach(() => {
  const folder = mkdtempSync(join(home, 'node-'))
  mkdirSync(join(folder, 'keys'))
  options = {
    directory: join(folder, 'log'),
    stem: 'sallyport.test/audit/n1',
    keys: epochKeys(join(folder, 'keys')),
    clock: { now: () => Date.now() },
    random: (n) => randomBytes(n),
  }
})

/** One run of a gateway; `seq`: the mark that its start writes, if it comes so far. */
async function lived(seq?: number): Promise<void> {
  const { log } = await openNodeLog(options)
  if (seq !== undefined)
    await log.append({
      code: 'policy.activate',
      message: 'Policy in force',
      status: 'success',
      data: { revision: 'r1', high_water: seq, high_water_sha256: digest },
    })
  await log.close()
}

async function rotated(): Promise<void> {
  const { log } = await rotateNodeLog(options)
  await log.close()
}

async function marks(): Promise<HighWater[]> {
  const { log, ended } = await openNodeLog(options)
  await using _closed = log
  return await loggedMarks(log, ended)
}

test('is found in the epoch before, and in the one before that, until the newest has one', async () => {
  await lived(7)
  await rotated()
  await rotated()
  expect(await marks()).toEqual([{ seq: 7, digest }])
})

test('of the newest epoch is enough, wherever those before it are', async () => {
  await lived(7)
  await rotated()
  await lived(8)
  rmSync(at(1), { recursive: true })
  expect(await marks()).toEqual([{ seq: 8, digest }])
})

test('is none where no gateway ever started over all epochs', async () => {
  await lived()
  await rotated()
  expect(await marks()).toEqual([])
})

test('is missed where the folder of the epoch before is gone, until it is back', async () => {
  await lived(7)
  await rotated()
  const aside = join(options.directory, '..', 'aside')
  renameSync(at(1), aside)
  await expect(marks()).rejects.toMatchObject({
    code: 'log.rollback',
    message: expect.stringContaining('put its folder back for one start') as string,
  })
  renameSync(aside, at(1))
  expect(await marks()).toEqual([{ seq: 7, digest }])
})

test('is missed where an event of the epoch before is another, in a frame that is whole', async () => {
  await lived(7)
  await rotated()
  const path = join(at(1), 'seg', '00000000000000000000.aud')
  const bytes = readFileSync(path)
  const mark = bytes.indexOf('"high_water":7')
  bytes.write('"high_water":1', mark)
  for (let offset = 0; offset < bytes.length; offset = frameEnd(bytes, offset))
    sealFrame(bytes, offset, frameIdx(bytes, offset), frameBatch(bytes, offset))
  writeFileSync(path, bytes)
  await expect(marks()).rejects.toMatchObject({
    code: 'log.rollback',
    message: expect.stringMatching(/\/1, which may hold the newest mark .* is violated/) as string,
  })
})

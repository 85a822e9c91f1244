/** An opening and a rotation with something missing that has to be there, or with something else in its place: refused. */
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { rotateNodeLog, verifyEpochs } from '#audit'
import { segmentName } from '../../audit/segment.ts'
import { textsOf, writerOf } from './epoch-fixture.ts'
import { fullOnce } from './fillable.ts'
import { stats, temporary } from './fixture.ts'

import {
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

describe('nothing is written', () => {
  const without = async (
    take: (one: Node, aside: (path: string) => string) => void,
  ): Promise<string> => {
    const one = node()
    await lived(one)
    const old = join(temporary(), '1')
    cpSync(one.at(1), old, { recursive: true })
    await rotated(one)
    take(one, () => old)
    const before = octets(one)
    const code = await refused(one)
    if (code !== 'opened') expect(octets(one)).toEqual(before)
    return code
  }
  const keysIn = (one: Node): string => join(one.options.directory, '..', 'keys')

  test('where the epoch that was begun is gone', async () => {
    expect(await without((one) => rmSync(one.at(2), { recursive: true }))).toBe('log.rollback')
  })
  test('where all was put back to before the rotation, but for the keys', async () => {
    const code = await without((one, aside) => {
      rmSync(one.options.directory, { recursive: true })
      cpSync(aside(''), one.at(1), { recursive: true })
    })
    expect(code).toBe('log.rollback')
  })
  test('where every epoch is gone, but the keys say that there was a second', async () => {
    expect(await without((one) => rmSync(one.at(1), { recursive: true }))).toBe('opened')
    const all = await without((one) => {
      rmSync(one.options.directory, { recursive: true })
      mkdirSync(one.options.directory)
    })
    expect(all).toBe('log.rollback')
  })
  test('where the keys of the epoch are gone', async () => {
    const code = await without((one) => {
      for (const name of newKeys) rmSync(join(keysIn(one), name))
    })
    expect(code).toBe('key.invalid')
  })
  test('where the epoch before is another than the one that it goes on from', async () => {
    const code = await without((one, aside) => {
      rmSync(one.at(1), { recursive: true })
      renameSync(aside(''), one.at(1))
    })
    expect(code).toBe('log.rollback')
  })
  test('where a later epoch does not begin as one, and the keys before it stay', async () => {
    const one = node()
    await lived(one)
    const [old, next] = [one.options.keys.read(1), one.options.keys.make(2)]
    if (old?.mlDsa44 === undefined || next.mlDsa44 === undefined) throw new Error('no keys')
    const own = { origin: `${stem}/2`, ed25519: next.ed25519, mlDsa44: next.mlDsa44, vkeys: [] }
    const writer = writerOf(one.at(2), own)
    writer.write(textsOf(own, [stats(1)]))
    writer.sign(Date.now())
    writer.close()
    const before = octets(one)
    expect(await refused(one)).toBe('log.corrupt')
    expect(octets(one)).toEqual(before)
    expect(one.keyFiles()).toEqual([...newKeys, ...oldKeys])
  })
  test.for([
    { name: 'cut', epoch: 2, cut: (path: string) => truncateSync(path, 1000) },
    { name: 'gone', epoch: 2, cut: (path: string) => rmSync(path) },
    { name: 'cut', epoch: 1, cut: (path: string) => truncateSync(path, 1000) },
    { name: 'gone', epoch: 1, cut: (path: string) => rmSync(path) },
  ])('where events of epoch $epoch, the newest, are $name', async ({ epoch, cut }) => {
    const one = node()
    await lived(one)
    if (epoch === 2) await rotated(one)
    cut(join(one.at(epoch), 'seg', segmentName(0)))
    // Opening looks at each byte, and says by itself that there are fewer than were signed: so does a rotation.
    expect(await refused(one)).toBe('log.rollback')
    expect(await rotateNodeLog(one.options).then(() => 'done', codeOf)).toBe('log.rollback')
    expect(one.keyFiles()).toEqual(epoch === 2 ? newKeys : oldKeys)
  })
  test('into an epoch whose beginning finds no room', async () => {
    const one = node()
    await lived(one)
    const at = temporary()
    const disk = fullOnce(at)
    const step = (name: string): void => {
      if (name === 'ended') disk.fill()
    }
    const { thread, limits } = disk
    const died = await rotateNodeLog({ ...one.options, thread, limits, step }).catch(codeOf)
    expect(died).toBe('log.full')
    // There was room again at once; what may be paid otherwise was not taken with it, to stand in its place.
    const tried = disk.refused()
    expect(tried).toContain('"log.epoch_begin"')
    expect(tried).not.toMatch(/"log\.(?:open|state)"/)
    expect(codes(one.at(2), 2)).toEqual([])
    expect(one.keyFiles()).toEqual([...newKeys, ...oldKeys])
    const { log, epoch } = await open(one)
    expect(epoch).toBe(2)
    expect(codes(one.at(2), 2).slice(0, 2)).toEqual(['log.epoch_begin', 'log.open'])
    expect(
      await verifyEpochs({ directory: one.options.directory, verifierKeys: log.vkeys }),
    ).toMatchObject({ outcome: 'proven' })
  })
  test('where the epoch ended for other keys than those that are here', async () => {
    const one = node()
    await lived(one)
    const { options } = one
    const stopped = { ...options, step: () => {} }
    const died = await rotateNodeLog({
      ...stopped,
      step: (name) => {
        if (name === 'ended') throw new Error('stopped')
      },
    }).catch((error: unknown) => String(error))
    expect(died).toBe('Error: stopped')
    options.keys.make(2)
    expect(await refused(one)).toBe('key.invalid')
    options.keys.remove(2)
    expect(await refused(one)).toBe('key.invalid')
    expect(readFileSync(join(one.at(1), 'checkpoint'), 'utf8')).toContain(`${stem}/1`)
    expect(readdirSync(options.directory)).toEqual(['1'])
  })
})

/** What the gateway records of those who watch its log: durably before anybody is told, and again where that failed. */
import { generateKeyPairSync } from 'node:crypto'
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { AuditError, parseCheckpoint, type AuditLog, type EventInput } from '#audit'
import { WitnessRoom } from '../../gateway/witnesses.ts'
import { signCheckpoint } from '../../audit/checkpoint.ts'
import { cosign, withLines } from '../../audit/cosign.ts'
import { formatWitnessKey, noteSigner, witnessSigner } from '../../audit/note.ts'
import { beginning, ending, first, now, second, writeEpoch } from '../audit/epoch-fixture.ts'
import { open, start, temporary } from '../audit/fixture.ts'

/** A log that refuses its next `refusals` events; the rest it takes when `gate` opens. */
function roomOver(log: AuditLog, refusals: number, gate: Promise<void> = Promise.resolve()) {
  const codes: string[] = []
  let left = refusals
  const append = async (event: EventInput) => {
    await gate
    if (left-- > 0) throw new AuditError('log.overloaded', 'too much waits')
    codes.push(event.code)
    return { idx: codes.length, uid: 'u', leaf: '0'.repeat(64) }
  }
  const { directory, origin, vkeys, signed } = log
  const room = new WitnessRoom(
    { directory, origin, vkeys, signed, append } as unknown as AuditLog,
    [],
    () => 1_750_000_000_000,
  )
  return { room, codes }
}

/** A log, and a head that its keys signed and it has not got. */
async function rewritten(): Promise<{ log: AuditLog; note: string }> {
  const log = await open(temporary())
  const other = await open(temporary())
  await other.append(start)
  const { note } = await other.checkpoint()
  await log.checkpoint()
  return { log, note }
}
const device = { device: 'press-07' }

test('a conflict that the log refused is recorded when it is shown again, and then once', async () => {
  const { log, note } = await rewritten()
  const { room, codes } = roomOver(log, 1)
  await expect(room.accuse(note, device)).rejects.toThrow('too much waits')
  expect(await room.accuse(note, device)).toBe(true)
  expect(await room.accuse(note, device)).toBe(true)
  expect(codes).toEqual(['finding.witness_conflict'])
})

test('what somebody was shown of a log of another name is recorded once for each, and proves nothing', async () => {
  const log = await open(temporary())
  await log.checkpoint()
  const { room, codes } = roomOver(log, 1)
  const said = (name: string): string => {
    const head = { origin: name, size: 7, root: new Uint8Array(32) }
    const signer = noteSigner(name, generateKeyPairSync('ed25519').privateKey)
    return signCheckpoint(head, [signer], 0).note
  }
  await expect(room.accuse(said('other/1'), device)).rejects.toThrow('too much waits')
  for (let i = 0; i < 5; i++) expect(await room.accuse(said(`other/${i}`), device)).toBe(true)
  expect(await room.accuse(said('other/1'), { actor: { uid: 'i|olga' } })).toBe(true)
  expect(codes).toEqual(['finding.witness_conflict', 'finding.witness_conflict'])
  expect(await room.accuse(said(log.origin), device)).toBe(false)
  expect(await room.accuse('no head', device)).toBe(false)
})

test('evidence of a conflict is not written over by whoever shows the same head again', async () => {
  const { log, note } = await rewritten()
  const { room } = roomOver(log, 0)
  await room.accuse(note, device)
  await room.accuse(`${note}— somebody AAAAAAAA\n`, { actor: { uid: 'i|mallory' } })
  const folder = join(log.directory, 'witness')
  const [name = '', ...more] = readdirSync(folder)
  expect([readFileSync(join(folder, name), 'utf8'), more]).toEqual([note, []])
})

test('nobody is told that a conflict is recorded before it is, however many show it at once', async () => {
  const { log, note } = await rewritten()
  const gate = Promise.withResolvers<void>()
  const { room, codes } = roomOver(log, 1, gate.promise)
  const both = Promise.allSettled([room.accuse(note, device), room.accuse(note, device)])
  gate.resolve()
  expect((await both).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  expect(codes).toEqual([])
})

test('a witness whose following the log refused reads nothing, and is recorded when it comes again', async () => {
  const { room, codes } = roomOver(await open(temporary()), 1)
  const both = await Promise.allSettled([room.follows('m', null), room.follows('m', null)])
  expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  await room.follows('m', null)
  await room.follows('m', null)
  expect(codes).toEqual(['admin.call'])
})

test('an epoch that ended and was moved away is no finding, is not made again, and another end of it is one', async () => {
  const [old, directory] = [temporary(), temporary()]
  writeEpoch(old, first, { closing: ending(second), signedEarly: true })
  writeEpoch(directory, second, { opening: beginning(first, old) })
  const headIn = (at: string) => parseCheckpoint(readFileSync(join(at, 'checkpoint'), 'utf8'))
  const last = headIn(old)
  const early = readFileSync(join(old, 'checkpoints.log'), 'utf8').split(
    /(?<=\n)\n(?=sallyport)/,
  )[0]
  const key = generateKeyPairSync('ed25519').privateKey
  const file = join(temporary(), 'w1.keys')
  writeFileSync(file, `${formatWitnessKey('test/w1', key)}\n`)
  const codes: string[] = []
  const append = (event: EventInput) => Promise.resolve(void codes.push(event.code))
  const { origin, vkeys } = second
  const log = { directory, origin, vkeys, signed: headIn(directory), append }
  const ended = [{ epoch: 1, origin: first.origin, directory: old, vkeys: first.vkeys, last }]
  const room = new WitnessRoom(log as unknown as AuditLog, [file], () => now, ended)
  const cosigned = (at: typeof last) =>
    withLines(at.note, cosign(at, [witnessSigner('test/w1', key)], now))
  const archive = temporary()
  cpSync(old, archive, { recursive: true })
  rmSync(old, { recursive: true })

  for (const note of [last.note, early ?? '']) expect(await room.accuse(note, device)).toBe(false)
  for (const at of [last, parseCheckpoint(early ?? '')])
    await expect(room.take(cosigned(at))).rejects.toMatchObject({ code: 'tile.unknown' })
  expect(() => room.tile('tile/entries/000.p/4', first.origin)).toThrow(/cannot be read/)
  expect(codes).toEqual([])
  // What its keys signed besides its end is against it, wherever its folder is.
  const other = headIn(writeEpoch(temporary(), first, { events: 4 }))
  expect(await room.accuse(other.note, device)).toBe(true)
  expect(codes).toEqual(['finding.witness_conflict'])
  expect(existsSync(old)).toBe(false)
  cpSync(archive, old, { recursive: true })
  expect(await room.take(cosigned(last))).toHaveLength(1)
})

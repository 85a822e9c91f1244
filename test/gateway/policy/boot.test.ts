/** Which policy a node starts with, whatever is on its disk; and what an evaluation that does not end leads to. */
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { examine, PolicyEngine, PolicyError } from '#policy'
import type { HighWater, PublicKeys } from '#policy'
import { bootPolicy } from '../../../gateway/policy/boot.ts'
import type { Boot } from '../../../gateway/policy/boot.ts'
import { examineApart } from '../../../gateway/policy/examiner.ts'
import { archiveDigest, PolicySlots } from '../../../gateway/policy/slots.ts'
import type { ServiceParts } from '../../../gateway/policy/parts.ts'
import { Trials } from '../../../gateway/policy/trials.ts'
import { readTar } from '../../../policy/tar.ts'
import { baseInputs } from '../../../policy/toolchain/vectors.ts'
import { archive, handmade, keyPair, signedArchive, withoutVectors } from '../../policy/fixture.ts'

const ours = keyPair('P-256')
const keys: PublicKeys = new Map([['plant', ours.pem]])
const signer = (seq: number) => ({ key: ours.key, keyId: 'plant', seq })
const [old, current] = [signedArchive(signer(7)), signedArchive(signer(8))]
const markOf = (bytes: Uint8Array, seq: number): HighWater => ({
  seq,
  digest: archiveDigest(bytes),
})

const LATER = new Set(['signed_approvals', 'session_bytes', 'recorded', 'signers', 'signed'])

function without(bytes: Uint8Array): Uint8Array {
  const document: unknown = JSON.parse(Buffer.from(bytes).toString(), (key, value: unknown) =>
    LATER.has(key) ? undefined : value,
  )
  return Buffer.from(JSON.stringify(document))
}

const directories: string[] = []
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true })
})

function fresh(): string {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-slots-'))
  directories.push(directory)
  return directory
}

/** A directory in which `old` has been good and `current` is active. */
function used(): string {
  const directory = fresh()
  const slots = PolicySlots.open(directory)
  slots.stage(old)
  slots.promote(markOf(old, 7), old)
  slots.settle(markOf(old, 7))
  slots.stage(current)
  slots.promote(markOf(current, 8), current)
  return directory
}

async function boot(directory: string, marks: HighWater[] = []): Promise<Boot> {
  const slots = PolicySlots.open(directory)
  return bootPolicy({ slots, keys, builtin: archive, marks, examine })
}

describe('the order of a boot', () => {
  // Its own older rules ask for none of this; here the rules are today's, so the data comes without vectors.
  const olds: [string, (name: string) => boolean, Record<string, null>][] = [
    ['zones had the keys they have now', (name) => name === 'data.json', withoutVectors()],
    ['inputs had the facts they have now', (name) => name.startsWith('vectors/'), {}],
  ]
  test.for(olds)('a bundle signed before %s', async ([, aged, others]) => {
    const directory = fresh()
    const slots = PolicySlots.open(directory)
    const files = [...readTar(archive)].filter(([name]) => aged(name))
    const changed = Object.fromEntries(files.map(([name, bytes]) => [name, without(bytes)]))
    const older = signedArchive(signer(7), { ...others, ...changed })
    slots.stage(older)
    slots.promote(markOf(older, 7), older)
    expect(await boot(directory)).toMatchObject({ origin: 'active', passed: [] })
  })

  test('an activation whose mark cannot be written: the one before, not the one half activated', async () => {
    const directory = used()
    const newer = signedArchive(signer(9))
    const slots = PolicySlots.open(directory)
    slots.stage(newer)
    // Where the state would be written beside: as a full disk, it takes nothing.
    mkdirSync(join(directory, 'state.json.new'))
    expect(() => slots.promote(markOf(newer, 9), newer)).toThrow(/state\.json\.new/)
    expect(slots.state.high_water).toEqual(markOf(current, 8))
    const found = await boot(directory)
    expect(found).toMatchObject({ origin: 'active', highWater: { seq: 8 } })
    expect(found.candidate?.identity.seq).toBe(8)
  })

  test('nothing on disk: the built-in policy', async () => {
    expect(await boot(fresh())).toMatchObject({ origin: 'builtin', passed: [], highWater: null })
  })

  test('the active one', async () => {
    const found = await boot(used())
    expect(found).toMatchObject({ origin: 'active', passed: [], highWater: { seq: 8 } })
    expect(found.candidate?.identity.seq).toBe(8)
  })

  const damages: [string, (directory: string) => void, string][] = [
    [
      'damaged',
      (directory) => writeFileSync(join(directory, 'active.tar'), current.slice(0, 9000)),
      'bundle.tar',
    ],
    [
      'of a stranger',
      (directory) =>
        writeFileSync(
          join(directory, 'active.tar'),
          signedArchive({ key: keyPair('P-256').key, keyId: 'plant', seq: 9 }),
        ),
      'bundle.signature',
    ],
    [
      'an older one put back',
      (directory) => writeFileSync(join(directory, 'active.tar'), old),
      'bundle.rollback',
    ],
    [
      'poisoned',
      (directory) => PolicySlots.open(directory).poison(archiveDigest(current), 0),
      'bundle.poisoned',
    ],
  ]
  test.for(damages)('the active one is %s: the last good one', async ([, damage, code]) => {
    const directory = used()
    damage(directory)
    const found = await boot(directory)
    expect(found).toMatchObject({ origin: 'last-good', passed: [{ origin: 'active', code }] })
    expect(found.candidate?.identity.seq).toBe(7)
  })

  test('both are damaged: nothing, not the built-in one, and everything is denied', async () => {
    const directory = used()
    for (const slot of ['active', 'last-good']) appendFileSync(join(directory, `${slot}.tar`), 'x')
    const { origin, candidate, passed } = await boot(directory)
    expect({ origin, candidate }).toEqual({ origin: null, candidate: null })
    expect(passed.map((one) => one.code)).toEqual(['bundle.tar'])
    const input = (await baseInputs())['session.open']
    const decision = PolicyEngine.unavailable().decide('session.open', input, { decisionId: 'd' })
    expect(decision.denials.map(({ code }) => code)).toEqual(['policy.unavailable'])
  })

  test('a last-good slot with something else in it, even well signed, is passed over', async () => {
    const directory = used()
    writeFileSync(join(directory, 'last-good.tar'), signedArchive(signer(6)))
    PolicySlots.open(directory).poison(archiveDigest(current), 0)
    expect(await boot(directory)).toMatchObject({ origin: null })
  })

  test('the disk was wiped, the log remembers: not the built-in one', async () => {
    const found = await boot(fresh(), [{ seq: 3, digest: 'aa' }])
    expect(found).toMatchObject({ origin: null, highWater: { seq: 3 } })
  })

  test('the log remembers a newer one than the disk: the disk’s is a rollback', async () => {
    const found = await boot(used(), [{ seq: 9, digest: 'aa' }])
    expect(found.passed).toMatchObject([{ origin: 'active', code: 'bundle.rollback' }])
    expect(found.origin).toBe('last-good')
  })

  test('a state file of before verdicts were kept has none; what is kept is there at the next start', () => {
    const directory = used()
    const { verdict: none, ...before } = PolicySlots.open(directory).state
    writeFileSync(join(directory, 'state.json'), JSON.stringify(before))
    const slots = PolicySlots.open(directory)
    expect([none, slots.state.verdict]).toEqual([null, null])
    const verdict = { digest: 'aa', revision: 'next', reason: 'too many', at: 1 }
    slots.judge(verdict)
    expect(PolicySlots.open(directory).state).toEqual({ ...slots.state, verdict })
    const parts = { slots: PolicySlots.open(directory) } as unknown as ServiceParts
    expect(new Trials(parts).verdict).toEqual(verdict)
  })

  test('a state file that is not understood stops the boot', () => {
    const directory = used()
    writeFileSync(join(directory, 'state.json'), '{}')
    expect(() => PolicySlots.open(directory)).toThrow(/damaged/)
    const state = { ...PolicySlots.open(used()).state, verdict: { digest: 'aa' } }
    writeFileSync(join(directory, 'state.json'), JSON.stringify(state))
    expect(() => PolicySlots.open(directory)).toThrow(/damaged/)
    writeFileSync(join(directory, 'state.json'), 'x')
    expect(() => PolicySlots.open(directory)).toThrow()
  })
})

describe('slots', () => {
  test('settling takes only what is active', () => {
    const directory = used()
    const slots = PolicySlots.open(directory)
    slots.settle(markOf(old, 7))
    expect(slots.read('last-good')).toEqual(old)
    slots.settle(markOf(current, 8))
    expect(slots.read('last-good')).toEqual(current)
    expect(PolicySlots.open(directory).state.last_good).toEqual(markOf(current, 8))
  })

  test('a mark that only the log remembers counts from then on', () => {
    const directory = used()
    PolicySlots.open(directory).recall({ seq: 9, digest: 'aa' })
    expect(PolicySlots.open(directory).state.high_water).toEqual({ seq: 9, digest: 'aa' })
    PolicySlots.open(directory).recall({ seq: 8, digest: 'bb' })
    expect(PolicySlots.open(directory).state.high_water?.seq).toBe(9)
  })

  test('an activation that was logged when the power went is carried out', async () => {
    const directory = used()
    const newer = signedArchive(signer(9))
    const slots = PolicySlots.open(directory)
    slots.stage(newer)
    slots.recall(markOf(newer, 9))
    expect(slots.read('active')).toEqual(newer)
    expect(await boot(directory)).toMatchObject({ origin: 'active', highWater: { seq: 9 } })
  })

  test('a mark never falls, whatever is promoted', () => {
    const slots = PolicySlots.open(used())
    slots.stage(old)
    slots.promote(markOf(old, 7), old)
    expect(slots.state.high_water?.seq).toBe(8)
  })

  test('what a power cut left half written is not read', () => {
    const directory = used()
    for (const name of ['active.tar', 'state.json', 'candidate.tar'])
      writeFileSync(join(directory, `${name}.new`), 'half')
    const slots = PolicySlots.open(directory)
    expect(slots.read('active')).toEqual(current)
    slots.stage(old)
    expect(slots.read('candidate')).toEqual(old)
    expect(readdirSync(directory)).toContain('active.tar')
  })
})

describe('a bundle looked at in another thread', () => {
  test('decides here like one looked at here', async () => {
    const engine = PolicyEngine.unavailable()
    engine.adopt(await examineApart(current, { trust: keys, highWater: null }))
    const input = (await baseInputs())['session.open']
    expect(engine.decide('session.open', input, { decisionId: 'd' }).allow).toBe(true)
    expect(engine.status()).toMatchObject({ state: 'active', seq: 8 })
  })

  test('is refused with the code it has there', async () => {
    const refusal = examineApart(old, { trust: keys, highWater: { seq: 8, digest: 'a' } })
    await expect(refusal).rejects.toMatchObject({ code: 'bundle.rollback' })
    await expect(refusal).rejects.toBeInstanceOf(PolicyError)
  })

  test('loops in its vectors: given up, the one in force goes on deciding', async () => {
    const wasm = handmade({ evaluation: 'loop' })
    const looping = signedArchive(signer(9), { 'policy.wasm': wasm })
    const refusal = examineApart(looping, { trust: keys, highWater: null }, 2000)
    await expect(refusal).rejects.toMatchObject({ code: 'bundle.loops' })
  })
})

test('an evaluation that does not end: poisoned, the process ends, the next one has the last good', () => {
  const directory = used()
  const slots = PolicySlots.open(directory)
  const wasm = handmade({ evaluation: 'loop' })
  const looping = signedArchive(signer(9), { ...withoutVectors(), 'policy.wasm': wasm })
  slots.stage(looping)
  slots.promote(markOf(looping, 9), looping)
  const program = join(import.meta.dirname, 'programs.ts')
  const run = () =>
    spawnSync(process.execPath, [program, directory, 'plant', ours.pem], {
      encoding: 'utf8',
      timeout: 50_000,
    })
  const first = run()
  expect(first.signal).toBe('SIGKILL')
  expect(first.stdout).toBe('')
  expect(first.stderr).toMatch(/did not end.*bundle\.poisoned/)
  expect(PolicySlots.open(directory).state).toMatchObject({
    poisoned: [archiveDigest(looping)],
    // What ended this gateway ends no other that tries it.
    verdict: { digest: archiveDigest(looping), reason: 'an evaluation did not end' },
  })
  const second = run()
  expect(second.status).toBe(0)
  expect(JSON.parse(second.stdout)).toMatchObject({
    origin: 'last-good',
    passed: [{ origin: 'active', code: 'bundle.poisoned' }],
    allow: true,
    codes: [],
  })
})

test('an evaluation that waits for a processor is no fault of its policy; one that gets none for long is ended', () => {
  const directory = used()
  const program = join(import.meta.dirname, 'starved.ts')
  const starved = (ms: number) =>
    spawnSync(process.execPath, [program, directory, String(ms)], {
      encoding: 'utf8',
      timeout: 100_000,
    })
  const lucky = starved(100)
  expect([lucky.stdout, lucky.signal, lucky.stderr]).toEqual(['decided', null, ''])
  expect(starved(60_000).signal).toBe('SIGKILL')
})

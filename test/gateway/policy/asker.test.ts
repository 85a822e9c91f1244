/** A candidate asked in a thread of its own: it answers like one here, and what it does wrong stays there. */
import { expect, test } from 'vitest'
import { examine, PolicyEngine } from '#policy'
import { Asker } from '../../../gateway/policy/asker.ts'
import { baseInputs } from '../../../policy/toolchain/vectors.ts'
import { handmade, keyPair, signedArchive, withoutVectors } from '../../policy/fixture.ts'

const { key, pem } = keyPair('P-256')
const options = { trust: new Map([['plant', pem]]), highWater: null }
const signer = { key, keyId: 'plant', seq: 1 }
/** Limits that a test which does not mean them never meets, however busy the machine is. */
const PATIENT = { startMs: 120_000, answerMs: 120_000, totalMs: 120_000 }
const input = (await baseInputs())['session.reevaluate']

/** No vectors: nothing that looks at it before has evaluated it. */
async function unlooked(evaluation: string) {
  const changed = { ...withoutVectors(), 'policy.wasm': handmade({ evaluation }) }
  return await examine(signedArchive(signer, changed), options)
}

test('answers each question, in its order, as an engine here does', async () => {
  const candidate = await examine(signedArchive(signer), options)
  const here = PolicyEngine.unavailable()
  here.adopt(candidate)
  await using asker = new Asker(candidate, PATIENT)
  const revoked = { ...input, grants: [] }
  const asked = [[input, revoked], [revoked], [], [input]]
  const answers = await Promise.all(asked.map((inputs) => asker.ask('session.reevaluate', inputs)))
  const wanted = asked.map((inputs) =>
    inputs.map((one) => here.decide('session.reevaluate', one, { decisionId: 'd_asked' })),
  )
  expect(answers).toEqual(wanted)
  expect(answers.flat().map(({ allow }) => allow)).toEqual([true, false, false, true])
})

test('an evaluation that does not end is given up, for all who wait and who come later', async () => {
  await using asker = new Asker(await unlooked('loop'), { ...PATIENT, answerMs: 200 })
  const ask = () => asker.ask('session.reevaluate', [input])
  const all = await Promise.allSettled([ask(), ask(), ask()])
  const loops = { status: 'rejected', reason: { code: 'bundle.loops' } }
  expect(all).toMatchObject([loops, loops, loops])
  const silent = { code: 'bundle.loops', detail: 'no answer within 200 ms' }
  await expect(ask()).rejects.toMatchObject(silent)
})

test('the clock of answers begins when the thread is ready, and coming up has its own', async () => {
  const candidate = await examine(signedArchive(signer), options)
  // A module that does not end while it is started: (start (loop (br 0))).
  const [types, functions, start] = [
    [1, 4, 1, 0x60, 0, 0],
    [3, 2, 1, 0],
    [8, 1, 0],
  ]
  const code = [10, 9, 1, 7, 0, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b]
  const head = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]
  const module = await WebAssembly.compile(
    new Uint8Array([head, types, functions, start, code].flat()),
  )
  const limits = { ...PATIENT, startMs: 300, answerMs: 1 }
  await using asker = new Asker({ ...candidate, module }, limits)
  await expect(asker.ask('session.reevaluate', [input])).rejects.toMatchObject({
    code: 'bundle.slow',
    detail: 'the thread that it is asked in was not ready within 300 ms',
  })
})

test('an answer that came in time is taken, though this thread was too busy to look', async () => {
  const candidate = await examine(signedArchive(signer), options)
  const began = performance.now()
  await using patient = new Asker(candidate, PATIENT)
  await patient.ask('session.reevaluate', [input])
  // Coming up and answering once took so long here: four times that is time enough for one answer.
  const answerMs = 200 + 4 * (performance.now() - began)
  await using asker = new Asker(candidate, { ...PATIENT, answerMs })
  await asker.ask('session.reevaluate', [input])
  const asked = asker.ask('session.reevaluate', [input])
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, answerMs + 200)
  expect(await asked).toHaveLength(1)
})

test('answers that come each in time, and go on coming, end at the limit for all', async () => {
  const candidate = await examine(signedArchive(signer), options)
  await using asker = new Asker(candidate, { ...PATIENT, totalMs: 300 })
  const forEver = async () => {
    for (;;) expect(await asker.ask('session.reevaluate', [input])).toHaveLength(1)
  }
  await expect(forEver()).rejects.toMatchObject({
    code: 'bundle.slow',
    detail: 'the answers took longer than 300 ms together',
  })
})

test('disposed of, it starts no thread, and whoever waits is told so', async () => {
  const candidate = await examine(signedArchive(signer), options)
  const [unasked, waiting] = [new Asker(candidate, PATIENT), new Asker(candidate, PATIENT)]
  const ask = (asker: Asker) => asker.ask('session.reevaluate', [input])
  const over = { message: 'the candidate is asked no more' }
  await unasked[Symbol.asyncDispose]()
  await expect(ask(unasked)).rejects.toMatchObject(over)
  const waited = expect(ask(waiting)).rejects.toMatchObject(over)
  await waiting[Symbol.asyncDispose]()
  await waited
  await expect(ask(waiting)).rejects.toMatchObject(over)
})

test('a module that traps denies: every session would be cut', async () => {
  await using asker = new Asker(await unlooked('trap'), PATIENT)
  const [decision] = await asker.ask('session.reevaluate', [input])
  expect([decision?.allow, decision?.denials[0]?.code]).toEqual([false, 'policy.error'])
})

/** A candidate asked in a thread of its own: it answers like one here, and what it does wrong stays there. */
import { expect, test } from 'vitest'
import { examine, PolicyEngine } from '#policy'
import { Asker } from '../../../gateway/policy/asker.ts'
import { baseInputs } from '../../../policy/toolchain/vectors.ts'
import { handmade, keyPair, signedArchive, withoutVectors } from '../../policy/fixture.ts'

const { key, pem } = keyPair('P-256')
const options = { trust: new Map([['plant', pem]]), highWater: null }
const signer = { key, keyId: 'plant', seq: 1 }
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
  await using asker = new Asker(candidate)
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
  await using asker = new Asker(await unlooked('loop'), 500)
  const ask = () => asker.ask('session.reevaluate', [input])
  const all = await Promise.allSettled([ask(), ask(), ask()])
  const loops = { status: 'rejected', reason: { code: 'bundle.loops' } }
  expect(all).toMatchObject([loops, loops, loops])
  await expect(ask()).rejects.toMatchObject({ code: 'bundle.loops' })
})

test('a module that traps denies: every session would be cut', async () => {
  await using asker = new Asker(await unlooked('trap'))
  const [decision] = await asker.ask('session.reevaluate', [input])
  expect([decision?.allow, decision?.denials[0]?.code]).toEqual([false, 'policy.error'])
})

/** The default policy and its vectors, as the trial by faults takes them. mutation.test.ts, test/fuzz/policy.ts. */
import { CompiledPolicy } from '../../policy/module.ts'
import { ENTRYPOINTS } from '../../policy/points.ts'
import type { Trial } from '../../policy/toolchain/fail-open.ts'
import { readVectors } from '../../policy/toolchain/vectors.ts'
import { builtin } from './fixture.ts'

const { wasm, dataText, reads } = builtin

export const trial: Trial = {
  compiled: await CompiledPolicy.compile(wasm, dataText, ENTRYPOINTS),
  reads,
  vectors: await readVectors(),
}

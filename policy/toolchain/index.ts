/** The door of the policy's compiler side: what `sallyport policy` does on a security team's machine. */
export type { Gate } from './check.ts'
export type { ExplainedRule, FailedExpression } from './explain.ts'
export type { Opa } from './opa.ts'
export type { Made } from './build.ts'
export type { PolicyTree, StagedTree } from './tree.ts'
export type { Release, SigningKey } from './release.ts'

export { makeBundle } from './build.ts'
export { formatTree } from './format.ts'
export { explain } from './explain.ts'
export type { Progress } from './gates.ts'
export { checkGates, testGates } from './gates.ts'
export { processEnvironment, resolveOpa } from './opa.ts'
export {
  bundleHere,
  newSigningKey,
  packed,
  permitFor,
  regoOf,
  signerId,
  signRelease,
  untrusted,
} from './release.ts'
export { starter } from './starter.ts'
export { DEFAULT_TREE, stageTree, TreeError } from './tree.ts'

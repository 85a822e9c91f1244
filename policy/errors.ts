/** What can be wrong with a bundle or a module; a decision never throws (engine.ts). docs/policy.md. */

export type PolicyCode =
  | 'bundle.size'
  | 'bundle.tar'
  | 'bundle.name'
  | 'bundle.duplicate'
  | 'bundle.missing'
  | 'bundle.unexpected'
  | 'bundle.manifest'
  | 'bundle.json'
  | 'bundle.digest'
  | 'bundle.unsigned'
  | 'bundle.signature'
  | 'bundle.key'
  | 'bundle.files'
  | 'bundle.rollback'
  | 'bundle.permit'
  | 'bundle.loops'
  | 'bundle.slow'
  | 'bundle.poisoned'
  | 'module.invalid'
  | 'module.abi'
  | 'module.builtin'
  | 'module.entrypoint'
  | 'module.data'
  | 'module.eval'
  | 'data.schema'
  | 'smoke.failed'
  | 'mask.failed'

/** A refusal of a bundle: the code to act on, and what exactly was found. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError'
  readonly code: PolicyCode
  readonly detail: string
  constructor(code: PolicyCode, detail: string, options?: ErrorOptions) {
    super(`${code}: ${detail}`, options)
    this.code = code
    this.detail = detail
  }
}

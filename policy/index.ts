/** The door of the policy room: load a bundle, decide. docs/policy.md. */
export type { Bundle, HighWater, LoadOptions, PublicKeys, Trust } from './bundle.ts'
export type { Candidate } from './candidate.ts'
export type { CatalogueRow, DenialCode, HostCode } from './catalogue.ts'
export type { Decision, Denial, Effect, Layer, Reason, Remedy } from './decision.ts'
export type { EngineStatus } from './engine.ts'
export type {
  Device,
  Expectation,
  Grant,
  Input,
  Lock,
  Observed,
  Owner,
  Partially,
  Point,
  Process,
  Session,
  Subject,
  TimeFacts,
  Trigger,
} from './envelope.ts'
export type { PolicyCode } from './errors.ts'
export type { MaskedRecord } from './mask.ts'
export type { ObligationKey, Obligations, ObligedWindow, Tightened } from './obligations.ts'
export type { Staleness } from './staleness.ts'
export type { AdminOperation, Role } from './operations.ts'

export { BUILTIN_BUNDLE, builtinDigest, loadBundle } from './bundle.ts'
export { examine } from './candidate.ts'
export { CATALOGUE, REASONS, catalogueRow } from './catalogue.ts'
export { PolicyEngine } from './engine.ts'
export { PolicyError } from './errors.ts'
export { asRego } from './flavour.ts'
export { keyIdOf } from './key-id.ts'
export { masking } from './mask.ts'
export { authnMethods, bareInput, canonicalIp, emptyInput, httpFacts, inputFor } from './input.ts'
export { ADMIN_OPERATIONS, ROLES, adminCall } from './operations.ts'
export { strictest, tightened } from './obligations.ts'
export { POINT_NAMES } from './points.ts'
export { inputSchema, pointSchemas } from './schema.ts'

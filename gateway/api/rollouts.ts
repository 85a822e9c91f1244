/** Rollouts: an update of the agent, given to a zone share by share. */
import { Type, type Static } from 'typebox'
import { Instant, Name, Text } from './common.ts'

export const RolloutId = Type.String({ pattern: '^o_[0-9a-z]{26}$' })

/** What is asked for beside the agent itself, which is the body: in the query. */
export const NewRollout = Type.Object(
  {
    /** The signed text. */
    manifest: Type.String({ minLength: 1, maxLength: 2048 }),
    zone: Type.Optional(Name),
    /** Per cent of the devices, rising, with commas. */
    stages: Type.String({ pattern: '^(?:[1-9]\\d?|100)(?:,(?:[1-9]\\d?|100)){0,9}$' }),
    soak_s: Type.Integer({ minimum: 0, maximum: 30 * 86_400 }),
    max_failures: Type.Integer({ minimum: 0, maximum: 10_000 }),
    reason: Text,
  },
  { additionalProperties: false },
)

export const Rollout = Type.Object({
  id: RolloutId,
  version: Type.String(),
  sha256: Type.String(),
  not_after: Instant,
  zone: Type.Union([Type.String(), Type.Null()]),
  stages: Type.Array(Type.Integer()),
  /** The share that is on now, and since when. */
  percent: Type.Integer(),
  stage_at: Instant,
  soak_s: Type.Integer(),
  max_failures: Type.Integer(),
  state: Type.Enum(['running', 'paused', 'aborted', 'done']),
  reason: Type.String(),
  by: Type.String(),
  at: Instant,
})
export type Rollout = Static<typeof Rollout>

export const RolloutDevice = Type.Object({
  /** The device. */
  name: Type.String(),
  state: Type.Enum([
    'offered',
    'taking',
    'starting',
    'trial',
    'updated',
    'refused',
    'failed',
    'lost',
  ]),
  /** Whether it counts against the rollout. */
  failure: Type.Boolean(),
  code: Type.Union([Type.String(), Type.Null()]),
  /** What is installed there: a file for the Node beside it, or an executable that holds one; null: it does not say. */
  kind: Type.Optional(Type.Union([Type.Enum(['file', 'executable']), Type.Null()])),
  /** The Node that runs it. */
  node: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  at: Instant,
})
export type RolloutDevice = Static<typeof RolloutDevice>

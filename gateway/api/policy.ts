/** Policy over the API: what is in force, what another would do, why a decision came out as it did. */
import { Type, type Static } from 'typebox'
import { Instant } from './common.ts'

const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(of: T) =>
  Type.Union([of, Type.Null()])

export const BundleSourceHealth = Type.Object({
  from: Type.String(),
  state: Type.Enum(['WAITING', 'OK', 'FAILED']),
  /** Of the last look that worked. */
  checked_at: Nullable(Instant),
  etag: Nullable(Type.String()),
  error: Nullable(Type.String()),
})

const TrialMode = Type.Enum(['shadow', 'canary'])
const RevisionText = Type.String({ maxLength: 256 })

/** What one gateway decides by, as it says itself. */
export const GatewayPolicy = Type.Object({
  gateway: Type.String({ maxLength: 40 }),
  /** Null: nothing is in force, and everything is denied. */
  revision: Nullable(RevisionText),
  seq: Nullable(Type.Integer()),
  bundle_digest: Nullable(Type.String({ maxLength: 64 })),
  data_digest: Nullable(Type.String({ maxLength: 64 })),
  /** By its own clock. */
  activated_at: Instant,
  /** It takes bundles from a `policy.source`. */
  by_itself: Type.Boolean(),
  /** What is tried there; null where no trial runs. */
  trial: Nullable(
    Type.Object({
      mode: TrialMode,
      digest: Type.String({ maxLength: 64 }),
      revision: RevisionText,
      percent: Type.Number(),
      label: Nullable(Type.String({ maxLength: 256 })),
      since: Instant,
    }),
  ),
  /** The last canary that ended by itself there: the others take it off trial too. */
  verdict: Nullable(
    Type.Object({
      digest: Type.String({ maxLength: 64 }),
      revision: RevisionText,
      reason: Type.String({ maxLength: 512 }),
      /** Epoch milliseconds, by its own clock. */
      at: Type.Integer(),
    }),
  ),
})
export type GatewayPolicy = Static<typeof GatewayPolicy>

/** The gateways that share a store, side by side. */
export const PolicyGateways = Type.Object({
  /** `unknown`: this one could not look for a while; of the others nothing is listed. */
  state: Type.Enum(['alike', 'differ', 'unknown']),
  /** From when on this one has seen them differ. */
  since: Nullable(Instant),
  /** The difference has lasted longer than it may, and an event says so. */
  told: Type.Boolean(),
  /** When it was looked at what the others say; null: not yet. */
  looked_at: Nullable(Instant),
  /** What to do where they differ. */
  next_step: Nullable(Type.String()),
  /** Who is heard of, by name; `here` is the one that answers. */
  items: Type.Array(Type.Object({ ...GatewayPolicy.properties, here: Type.Boolean() })),
})
export type PolicyGateways = Static<typeof PolicyGateways>

export const PolicyStatus = Type.Object({
  state: Type.Enum(['unavailable', 'active']),
  revision: Nullable(Type.String()),
  seq: Nullable(Type.Integer()),
  data_digest: Nullable(Type.String()),
  bundle_digest: Nullable(Type.String()),
  /** Where what is in force came from at the last start. */
  source: Type.Enum(['active', 'last-good', 'builtin', 'none']),
  activated_at: Instant,
  /** The highest sequence ever in force here; bundles below are refused. */
  high_water: Type.Integer(),
  candidate: Nullable(
    Type.Object({
      digest: Type.String(),
      /** The identity that uploaded it, or the source that it came from. */
      by: Type.String(),
      /** The same for people: the address of the account, where there is one. */
      person: Type.String(),
      at: Instant,
    }),
  ),
  /** What a start falls back to, and a rollback goes to; null before one has proved good here. */
  last_good: Nullable(Type.Object({ seq: Type.Integer(), digest: Type.String() })),
  /** Whether there is something to go back to: a last good one that is not in force. */
  can_go_back: Type.Boolean(),
  /** What the last activation or way back since the start cut, and how long that took; null before the first, and where it has not come to that. */
  last_cuts: Nullable(
    Type.Object({
      revision: Type.String(),
      at: Instant,
      sessions: Type.Integer(),
      /** In sessions that went on. */
      connections: Type.Integer(),
      /** Of sessions and connections together; null where nothing was cut. */
      p50_ms: Nullable(Type.Number()),
      slowest_ms: Nullable(Type.Number()),
    }),
  ),
  trusted_keys: Type.Array(Type.String()),
  decisions: Type.Integer(),
  errors: Type.Integer(),
  rebuilds: Type.Integer(),
  /** Epoch seconds from which what is in force counts as stale; null: never. */
  stale_at: Nullable(Type.Integer()),
  last_failure: Nullable(Type.Object({ code: Type.String(), detail: Type.String() })),
  /** Where bundles come from by themselves, and how that fares; null where the configuration names nothing. */
  bundle_source: Nullable(BundleSourceHealth),
  /** What this and the other gateways on one store decide by; null where it is alone. */
  gateways: Nullable(PolicyGateways),
  boot_failures: Type.Array(
    Type.Object({ origin: Type.String(), code: Type.String(), detail: Type.String() }),
  ),
  journal: Type.Object({
    state: Type.Enum(['OK', 'FAILED']),
    waiting: Type.Integer(),
    written: Type.Integer(),
    /** Decisions since the start that could not be recorded; nobody who needed the record went on. */
    dropped: Type.Integer(),
    rings: Type.Array(
      Type.Object({
        name: Type.Enum(['acts', 'flow']),
        /** Records since the first of all. */
        count: Type.Integer(),
        head: Type.String(),
        /** Where the chain did not hold when the gateway started. */
        broken: Nullable(Type.String()),
      }),
    ),
  }),
})
export type PolicyStatus = Static<typeof PolicyStatus>

export const ImpactQuery = Type.Object(
  {
    /** Replay past decisions from then on; without it only live sessions are asked about. */
    since: Type.Optional(Instant),
    /** A downgrade permit (compact JWS): this bundle may be older than what has been in force. */
    permit: Type.Optional(Type.String({ minLength: 1, maxLength: 2048 })),
  },
  { additionalProperties: false },
)

const SESSION_PREVIEW = {
  session: Type.String(),
  device: Type.String(),
  process: Type.String(),
  person: Type.String(),
  vendor: Nullable(Type.String()),
}

const CutPreview = Type.Object({
  ...SESSION_PREVIEW,
  code: Type.String(),
  message: Type.String(),
})

/** A session that goes on with less than the policy in force leaves it. */
const NarrowPreview = Type.Object({
  ...SESSION_PREVIEW,
  /** Obligations, and what they are under the one policy and the other. */
  tightened: Type.Array(
    Type.Object({ name: Type.String(), before: Type.Unknown(), after: Type.Unknown() }),
  ),
  /** Connections that are cut because they might do more; others of the session go on. */
  connections: Type.Integer(),
})

const Turned = Type.Object({
  point: Type.String(),
  change: Type.Enum(['newly_denied', 'newly_allowed', 'obligations']),
  person: Type.String(),
  vendor: Nullable(Type.String()),
  zone: Nullable(Type.String()),
  codes: Type.Array(Type.String()),
  count: Type.Integer(),
  example: Type.String(),
})

export const NewTrial = Type.Object(
  {
    digest: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    mode: TrialMode,
    /** Of people and devices, by a hash that stays the same for each. */
    percent: Type.Optional(Type.Number({ minimum: 0, maximum: 100 })),
    /** Or the devices with this label: `name=value`. */
    label: Type.Optional(Type.String({ pattern: '^[^=]{1,64}=.{0,128}$' })),
  },
  { additionalProperties: false },
)

export const PolicyTrial = Type.Object({
  mode: TrialMode,
  digest: Type.String(),
  revision: Type.String(),
  percent: Type.Number(),
  label: Nullable(Type.String()),
  /** The one that tries it: others decide by what is in force there. */
  gateway: Type.String(),
  since: Instant,
  state: Type.Enum(['running', 'ended']),
  reason: Nullable(Type.String()),
  decisions: Type.Integer(),
  passed_over: Type.Integer(),
  newly_denied: Type.Integer(),
  newly_allowed: Type.Integer(),
  obligations: Type.Integer(),
  errors: Type.Integer(),
  differences: Type.Array(Turned),
})
export type PolicyTrial = Static<typeof PolicyTrial>

export const PolicyImpact = Type.Object({
  revision: Type.String(),
  seq: Type.Integer(),
  digest: Type.String(),
  /** It decides already: an upload kept nothing, and there is nothing to activate. */
  in_force: Type.Boolean(),
  live: Type.Object({
    sessions: Type.Integer(),
    cut: Type.Array(CutPreview),
    narrowed: Type.Array(NarrowPreview),
    /** What they stand on could not be looked up; an activation that meets the same cuts them. */
    unseen: Type.Array(Type.Object(SESSION_PREVIEW)),
  }),
  past: Nullable(
    Type.Object({
      decisions: Type.Integer(),
      replayed: Type.Integer(),
      not_replayable: Type.Integer(),
      turned: Type.Array(Turned),
      /** Time of the oldest decision looked at. */
      from: Nullable(Type.String()),
      truncated: Type.Boolean(),
    }),
  ),
  /** Why the past was not looked at though it was asked for. */
  past_unread: Nullable(Type.String()),
})
export type PolicyImpact = Static<typeof PolicyImpact>

export const PolicyDigest = Type.Object(
  { digest: Type.String({ pattern: '^[0-9a-f]{64}$' }) },
  { additionalProperties: false },
)

export const PolicyActivated = Type.Object({
  revision: Type.String(),
  digest: Type.String(),
  /** It was in force before: nothing was done. */
  already: Type.Boolean(),
  sessions: Type.Array(Type.Object({ id: Type.String(), time_to_cut_ms: Type.Number() })),
  slowest_ms: Nullable(Type.Number()),
  /** This and the other gateways on one store, which this did not change; null where it is alone. */
  gateways: Nullable(PolicyGateways),
})
export type PolicyActivated = Static<typeof PolicyActivated>

export const DecisionId = Type.String({ pattern: '^d_[0-9a-z]{26}$' })

const Why = Type.Object({
  code: Type.String(),
  msg: Nullable(Type.String()),
  remedy: Nullable(Type.String()),
  next_step: Nullable(Type.String()),
  ref: Nullable(Type.String()),
})

/** A decision as it was logged. A vendor sees of it what the answer showed: the rest is null. */
export const LoggedDecision = Type.Object({
  decision_id: Type.String(),
  timestamp: Type.String(),
  point: Type.String(),
  effect: Type.String(),
  revision: Nullable(Type.String()),
  data_digest: Nullable(Type.String()),
  layer: Nullable(Type.String()),
  session: Nullable(Type.String()),
  zone: Nullable(Type.String()),
  why: Type.Array(Why),
  obligations: Type.Unknown(),
  input: Type.Union([Type.Unknown(), Type.Null()]),
})
export type LoggedDecision = Static<typeof LoggedDecision>

/** The last millisecond of the year 9999. */
const LAST_MS = 253_402_300_799_999
/** A place in the decision log, `ACTS.FLOW`: of each chain the line that comes next, or `@` and a time. */
const DecisionsPlace = Type.String({ pattern: '^(@?[0-9]{1,15})\\.(@?[0-9]{1,15})$' })

/** One of the two. */
export const DecisionsQuery = Type.Object(
  {
    /** Of each chain the first decision that was written then or later, in epoch milliseconds, and all behind it. */
    from: Type.Optional(Type.Integer({ minimum: 0, maximum: LAST_MS })),
    /** The `next` of another page: what comes behind that, whatever the clock did. */
    after: Type.Optional(DecisionsPlace),
  },
  { additionalProperties: false, minProperties: 1, maxProperties: 1 },
)

/** Decision records in OPA's form, oldest first, as the mask of the policy in force lets them leave. */
export const DecisionsPage = Type.Object({
  items: Type.Array(Type.Object({ decision_id: Type.String() }, { additionalProperties: true })),
  /** Where it goes on, now or when there is more. */
  next: DecisionsPlace,
  /** Whether there is more by now. */
  more: Type.Boolean(),
})
export type DecisionsPage = Static<typeof DecisionsPage>

export const WhoCanQuery = Type.Object(
  {
    device: Type.String({ maxLength: 40 }),
    process: Type.String({ maxLength: 40 }),
    /** `next` of the page before. */
    after: Type.Optional(Type.String({ maxLength: 64 })),
  },
  { additionalProperties: false },
)

export const WhoCan = Type.Object({
  device: Type.String(),
  process: Type.String(),
  at: Instant,
  items: Type.Array(
    Type.Object({
      person: Type.String(),
      party: Type.String(),
      vendor: Nullable(Type.String()),
      effect: Type.String(),
      codes: Type.Array(Type.String()),
      grant: Nullable(Type.String()),
    }),
  ),
  /** Where the next page begins; null where this is the last. */
  next: Nullable(Type.String()),
})
export type WhoCan = Static<typeof WhoCan>

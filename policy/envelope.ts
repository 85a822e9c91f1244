/**
 * The input envelope, version 1: what every decision point is asked with. Every key is always
 * present; null says "unknown", [] says "none". schema/input.json is the same statement, for the
 * host's validator and for the Rego compiler.
 */

/** Epoch seconds, an integer. */
export type EpochSeconds = number
export type Scalar = string | number | boolean | null

export interface Input {
  readonly v: 1
  readonly action: Point
  readonly request_id: string | null
  readonly tenant: string | null
  readonly gateway: { readonly id: string | null; readonly site: string | null }
  readonly time: TimeFacts
  readonly subject: Subject
  readonly client: Client | null
  readonly tls: { readonly client: TlsFacts | null; readonly device: TlsFacts | null }
  readonly device: Device | null
  readonly process: Process | null
  readonly ot: OtRequest | null
  /** Those naming this subject, device and process, in any state (ended ones explain a denial); <= 32. */
  readonly grants: readonly Grant[]
  /** Only the locks that touch this request. */
  readonly locks: readonly Lock[]
  readonly session: Session | null
  readonly enroll: Enroll | null
  readonly renew: Renew | null
  readonly tunnel: {
    readonly peer_device_id: string | null
    readonly peer_ip: string | null
  } | null
  readonly request: GrantRequest | null
  readonly approval: Approval | null
  readonly http: HttpFacts | null
  readonly admin: AdminCall | null
}

export type Point =
  | 'device.enroll'
  | 'device.renew'
  | 'tunnel.connect'
  | 'grant.request'
  | 'grant.approve'
  | 'session.open'
  | 'session.reevaluate'
  | 'ot.verb'
  | 'http.request'
  | 'admin.api'

export interface TimeFacts {
  readonly epoch_s: EpochSeconds | null
  /** The clock on the wall where the device stands; weekday 0 is Sunday, minute of the day 0..1439. */
  readonly local: {
    readonly tz: string | null
    readonly weekday: number | null
    readonly minute: number | null
    readonly second: number | null
  }
}

export interface Subject {
  /** `<iss>|<sub>`, or the device id for kind `device`. */
  readonly id: string | null
  readonly issuer: string | null
  readonly kind: 'human' | 'service' | 'device' | null
  readonly party: 'staff' | 'vendor' | null
  readonly vendor: string | null
  readonly email: string | null
  readonly groups: readonly string[]
  readonly roles: readonly string[]
  readonly token_exp: EpochSeconds | null
  readonly authn: {
    readonly methods: readonly string[]
    readonly acr: string | null
    readonly at: EpochSeconds | null
  }
  /** Allow-listed claims only, scalars or lists of strings. */
  readonly claims: Readonly<Record<string, Scalar | readonly string[]>>
  readonly break_glass: {
    readonly id: string | null
    readonly not_after: EpochSeconds | null
    readonly approvers: readonly string[]
  } | null
}

export interface Posture {
  readonly ok: boolean | null
  readonly checked_at: EpochSeconds | null
  readonly facts: Readonly<Record<string, Scalar>>
}

export interface Client {
  readonly ip: string | null
  readonly family: 4 | 6 | null
  readonly managed: boolean | null
  readonly version_int: number | null
  readonly posture: Posture | null
}

export interface TlsFacts {
  readonly version: string | null
  readonly cipher: string | null
  readonly group: string | null
  readonly pq: boolean | null
}

export interface Device {
  readonly id: string | null
  readonly zone: string | null
  readonly state: 'pending' | 'active' | 'quarantined' | 'revoked' | 'retired' | null
  readonly labels: Readonly<Record<string, string>>
  readonly agent_version_int: number | null
  readonly uplink_bps: number | null
  /** The owner's switch on the device: true means nobody comes in. */
  readonly island: boolean | null
  readonly consent: { readonly at: EpochSeconds | null; readonly by: string | null } | null
  readonly cert: { readonly serial: string | null; readonly not_after: EpochSeconds | null }
  readonly attestation: {
    readonly kind: string | null
    readonly verified: boolean | null
    readonly at: EpochSeconds | null
  } | null
  readonly posture: Posture | null
}

export type MatchKey = 'sha256' | 'script_sha256' | 'image' | 'exe' | 'unit' | 'uid'

/** Which facts must match, and the values accepted for each. `match` names sha256 or image, or nothing matches. */
export interface Expectation {
  readonly match: readonly MatchKey[]
  readonly sha256: readonly string[]
  readonly script_sha256: readonly string[]
  readonly image: readonly string[]
  readonly exe: readonly string[]
  readonly unit: readonly string[]
  readonly uid: readonly number[]
}

export interface Owner {
  readonly phase: 'listener' | 'accepted' | null
  readonly exe: string | null
  readonly sha256: string | null
  readonly script_sha256: string | null
  readonly uid: number | null
  readonly unit: string | null
  readonly image: string | null
  readonly started_at: EpochSeconds | null
  readonly pid: number | null
}

/** The owner of the socket, and every further owner of the same socket. */
export interface Observed extends Owner {
  readonly others: readonly Owner[]
}

export interface Process {
  readonly id: string | null
  readonly kind: string | null
  readonly locality: 'device' | 'spawned' | 'lan' | null
  readonly port: number | null
  readonly expect: Expectation | null
  readonly observed: Observed | null
}

export interface OtRequest {
  readonly protocol: string | null
  readonly op: 'read' | 'write' | 'control' | 'unknown' | null
  readonly function: number | null
  readonly unit: number | null
  readonly address: number | null
  readonly count: number | null
}

/** Addresses `from`..`to` of one unit, both inclusive. */
export interface OtWindow {
  readonly unit: number | null
  readonly from: number | null
  readonly to: number | null
}

export interface Grant {
  readonly id: string | null
  readonly state: 'requested' | 'approved' | 'active' | 'spent' | 'revoked' | null
  readonly subject: string | null
  readonly vendor: string | null
  readonly requester: string | null
  readonly approvers: readonly string[]
  /** Those of the approvers whose passkey signed this very statement. */
  readonly signers: readonly string[]
  readonly devices: readonly string[]
  readonly processes: readonly string[]
  readonly ot_level: 0 | 1 | 2 | null
  readonly ot_windows: readonly OtWindow[]
  readonly not_before: EpochSeconds | null
  readonly not_after: EpochSeconds | null
  readonly max_duration_s: number | null
  readonly first_used_at: EpochSeconds | null
  /** min(not_after, first use + max_duration_s), filled by the gateway. */
  readonly expires_at: EpochSeconds | null
  readonly max_bytes: number | null
  readonly ticket: { readonly ref: string | null; readonly valid: boolean | null } | null
}

export interface Lock {
  readonly id: string | null
  readonly scope: 'subject' | 'device' | 'vendor' | 'site' | 'all' | null
  readonly reason: string | null
}

/** Why a session is decided again. `stream`: the accepted socket's owner is known, no byte has flowed. */
export type Trigger =
  | 'stream'
  | 'policy'
  | 'data'
  | 'device'
  | 'posture'
  | 'certificate'
  | 'grant'
  | 'lock'
  | 'identity'
  | 'process'
  | 'consent'
  | 'deadline'

export interface Session {
  readonly id: string | null
  readonly opened_at: EpochSeconds | null
  readonly bytes_in: number | null
  readonly bytes_out: number | null
  readonly last_activity_at: EpochSeconds | null
  readonly decision_id: string | null
  readonly trigger: Trigger | null
}

export interface Enroll {
  readonly token: {
    readonly id: string | null
    readonly zone: string | null
    readonly uses_left: number | null
    readonly expires_at: EpochSeconds | null
  }
  readonly key: { readonly alg: string | null; readonly hardware: boolean | null }
  readonly claimed_serial: string | null
}

export interface Renew {
  readonly device_id: string | null
  readonly serial: string | null
  readonly not_after: EpochSeconds | null
  /** Seconds since the presented certificate ended; 0 or less while it is still valid. */
  readonly expired_s: number | null
  readonly chain_ok: boolean | null
  readonly same_key: boolean | null
  readonly late_used: boolean | null
}

export interface GrantRequest {
  readonly duration_s: number | null
  readonly processes: readonly string[]
  readonly ot_level: 0 | 1 | 2 | null
  readonly reason: string | null
  readonly ticket: string | null
}

export interface Approval {
  /** The grant to be approved; null where a second person signs an administrative call. */
  readonly grant: Grant | null
  /** Who has approved so far, this person not counted. */
  readonly approvals: readonly string[]
  /** Whether this person's passkey signed the grant. */
  readonly signed: boolean | null
}

export interface HttpFacts {
  /** Upper case. */
  readonly method: string | null
  /** Lower-case A-labels, no port. */
  readonly host: string | null
  /** Decoded once, no dot segments, no double slash; see `httpFacts`. */
  readonly path: string | null
  readonly segments: readonly string[]
}

export interface AdminCall {
  /** `<kind>:<verb>`, one of `ADMIN_OPERATIONS`. */
  readonly operation: string | null
  readonly mutating: boolean | null
  readonly target: {
    readonly kind: string | null
    readonly id: string | null
    readonly zone: string | null
    /** Identity that owns the target: for grants and sessions, their subject. */
    readonly owner: string | null
  } | null
}

/** Any part of a thing, to any depth; lists are given whole. */
export type Partially<T> =
  T extends ReadonlyArray<infer E>
    ? ReadonlyArray<Partially<E>>
    : T extends object
      ? { readonly [K in keyof T]?: Partially<T[K]> }
      : T

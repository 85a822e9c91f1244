/** What events speak of, and the fields that several of them share, each with its type and privacy. */
import type { EntityRow, Fields } from './event-row.ts'

export const device: EntityRow = { type: 'Device', typeId: 1, from: 'device' }
export const grant: EntityRow = { type: 'Grant', typeId: 99, from: 'grant' }
export const session: EntityRow = { type: 'Session', typeId: 99, from: 'session' }
export const certificate: EntityRow = { type: 'Certificate', typeId: 99, from: { field: 'serial' } }
export const policy: EntityRow = { type: 'Policy', typeId: 5, from: { field: 'revision' } }
export const sink: EntityRow = { type: 'Sink', typeId: 99, from: { field: 'sink' } }
export const recording: EntityRow = { type: 'Recording', typeId: 99, from: 'session' }
export const target: EntityRow = { type: 'Scope', typeId: 99, from: { field: 'target' } }

export const certificateData = {
  serial: 'public text',
  spki_sha256: 'public text?',
  certificate_sha256: 'public text?',
  not_before: 'public integer?',
  not_after: 'public integer?',
  profile: 'public text?',
  subject: 'public text?',
  sans: 'public texts?',
  replaces: 'public text?',
  token: 'public text?',
  one_time_token: 'secret text?',
} as const satisfies Fields

/**
 * Of a failure that is told behind an act which was recorded before it: `held`, it came to be all the same; `none`, it did
 * not; `unknown`, nobody knows.
 */
const effect = 'public text?'

/** Of a device that comes into another state. */
export const movedData = { effect, detail: 'public json?' } as const satisfies Fields

export const grantData = {
  effect,
  processes: 'public texts?',
  devices: 'public texts?',
  verbs: 'public texts?',
  // The Modbus addresses it is for, in words; absent: it names none.
  addresses: 'public text?',
  not_before: 'public integer?',
  not_after: 'public integer?',
  // Epoch seconds: when it ended by itself, which may have been while nobody was there to record it.
  ended_at: 'public integer?',
  max_seconds: 'public integer?',
  // Of its window, the hours of some days alone, in words; absent: all of it.
  recurring: 'public text?',
  max_bytes: 'public integer?',
  max_uses: 'public integer?',
  // Sessions under it so far, with the one that this event is about.
  uses: 'public integer?',
  // Of a request, the grant it extends or supersedes; of what is extended, the one that does.
  extends: 'public text?',
  supersedes: 'public text?',
  extension: 'public text?',
  // How many people break its seal; the sealed grant that this one opens.
  sealed: 'public integer?',
  unseals: 'public text?',
  reason_given: 'personal text?',
  ticket: 'public text?',
  requester: 'personal text?',
  grant_sha256: 'public text?',
  approver_assertion_sha256: 'public text?',
  approvals: 'public integer?',
  approvals_needed: 'public integer?',
} as const satisfies Fields

export const policyData = {
  revision: 'public text',
  bundle_sha256: 'public text?',
  seq: 'public integer?',
  high_water: 'public integer?',
  high_water_sha256: 'public text?',
  permit_sha256: 'public text?',
  previous: 'public text?',
  approvers: 'personal texts?',
  impact_sha256: 'public text?',
  cuts: 'public integer?',
} as const satisfies Fields

export const cutData = {
  target: 'public text?',
  scope: 'public text?',
  sessions: 'public texts?',
  time_to_cut_ms: 'public integer?',
  until: 'public integer?',
} as const satisfies Fields
export const lockData = { ...cutData, target: 'public text', effect } as const satisfies Fields

export const sinkData = {
  sink: 'public text',
  kind: 'public text?',
  address: 'public text?',
  second_person: 'personal text?',
  before_sha256: 'public text?',
  after_sha256: 'public text?',
} as const satisfies Fields

/** Observed and expected executable: which program answered, how that is known, what was approved. */
export const processData = {
  observed: 'public json?',
  expected: 'public json?',
  proof: 'public text?',
} as const satisfies Fields

export const sessionData = {
  ...processData,
  verbs: 'public texts?',
  start_idx: 'public integer?',
  remaining_ms: 'public integer?',
  obligations: 'public json?',
  stream: 'public text?',
  party: 'public text?',
  kind: 'public text?',
  // What is recorded (`flow`: bytes a second alone), and who can open it. Absent: policy asked for nothing.
  recording: 'public text?',
  recipients: 'public texts?',
} as const satisfies Fields

export const trafficData = {
  bytes_in: 'public integer',
  bytes_out: 'public integer',
  duration_ms: 'public integer',
  // `[epoch second, in, out]` of each second in which something passed.
  buckets: 'public json?',
} as const satisfies Fields

export const otData = {
  unit: 'public integer?',
  function_code: 'public integer?',
  address: 'public integer?',
  quantity: 'public integer?',
  value_sha256: 'public text?',
  count: 'public integer?',
  exception: 'public integer?',
} as const satisfies Fields

export const tunnelData = {
  tunnel: 'public text',
  tls_version: 'public text?',
  group: 'public text?',
  cipher: 'public text?',
  serial: 'public text?',
  agent_version: 'public text?',
  clock_offset_ms: 'public integer?',
  epoch: 'public integer?',
  targets: 'public json?',
  duration_ms: 'public integer?',
  // Refusals like this one that have no event of their own.
  suppressed: 'public integer?',
  time_to_cut_ms: 'public integer?',
} as const satisfies Fields

export const apiData = {
  effect,
  operation: 'public text',
  revision: 'public text?',
  before_sha256: 'public text?',
  after_sha256: 'public text?',
  record_sha256: 'public text?',
  point: 'public text?',
  trigger: 'public text?',
  path: 'public text?',
  response_code: 'public integer?',
  entity: 'public text?',
  // Fields with their new values.
  changes: 'personal json?',
} as const satisfies Fields

export const logData = {
  size: 'public integer?',
  root: 'public text?',
  detail: 'public json?',
} as const satisfies Fields

/** The epoch that follows, and the vkeys that sign it. */
export const epochEndData = {
  successor: 'public text',
  keys: 'public texts',
} as const satisfies Fields

/** The epoch before, its vkeys and its last signed note. */
export const epochBeginData = {
  predecessor: 'public text',
  keys: 'public texts',
  note: 'public text',
  // Sessions that went on over the rotation: recovery ends those that a crash cut off.
  carried: 'public texts?',
} as const satisfies Fields

export const partData = {
  track: 'public integer?',
  // It was being written when the gateway died.
  torn: 'public flag?',
  part: 'public integer?',
  parts: 'public integer?',
  file: 'public text?',
  sha256: 'public text?',
  bytes: 'public integer?',
  t0: 'public integer?',
  t1: 'public integer?',
  root: 'public text?',
} as const satisfies Fields

export const findingData = {
  ...processData,
  finding: 'public text',
  title: 'public text',
  detail: 'public json?',
} as const satisfies Fields

export const rolloutData = {
  rollout: 'public text',
  version: 'public text?',
  sha256: 'public text?',
  // start, pause, resume, abort; stage, done: by itself. Of a device: what became of its update.
  act: 'public text?',
  outcome: 'public text?',
  zone: 'public text?',
  percent: 'public integer?',
} as const satisfies Fields

export const nodeData = { version: 'public text', detail: 'public json?' } as const satisfies Fields

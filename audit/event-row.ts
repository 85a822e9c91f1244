/** What a row of the event catalogue may say: the OCSF vocabulary and the types of fields. design: audit.md section 1. */

/** OCSF classes in use: `uid` is class_uid, `category` is category_uid. */
export const classes = {
  entity: { uid: 3004, category: 3 },
  authentication: { uid: 3002, category: 3 },
  authorizeSession: { uid: 3003, category: 3 },
  network: { uid: 4001, category: 4 },
  http: { uid: 4002, category: 4 },
  tunnel: { uid: 4014, category: 4 },
  inventory: { uid: 5001, category: 5 },
  application: { uid: 6002, category: 6 },
  api: { uid: 6003, category: 6 },
  eventLog: { uid: 1008, category: 1 },
  finding: { uid: 2004, category: 2 },
} as const
export type OcsfClass = keyof typeof classes

/** activity_id of an HTTP Activity, by method; any other is 99. */
export const httpActivities: Readonly<Record<string, number>> = {
  CONNECT: 1,
  DELETE: 2,
  GET: 3,
  HEAD: 4,
  OPTIONS: 5,
  POST: 6,
  PUT: 7,
  TRACE: 8,
  PATCH: 9,
}

/** OCSF severity_id: 1 informational, 2 low, 3 medium, 4 high, 5 critical, 6 fatal. */
export type Severity = 1 | 2 | 3 | 4 | 5 | 6

/** Facts of an event that are not its code's own: a row lists those it cannot do without. */
export type Fact = 'actor' | 'src' | 'device' | 'process' | 'grant' | 'session'

export type Privacy = 'public' | 'personal' | 'secret'
export type Kind = 'text' | 'integer' | 'flag' | 'texts' | 'json'
/** `public text` is required, `public text?` may be absent; `secret` is accepted and never written. */
export type FieldType = `${Privacy} ${Kind}` | `${Privacy} ${Kind}?`
export type Fields = Readonly<Record<string, FieldType>>

export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [key: string]: Json | undefined }

/** What managed entity (OCSF `entity`) an entity event speaks of, and where its uid is found. */
export interface EntityRow {
  readonly type: string
  readonly typeId: 1 | 5 | 99
  readonly from: 'device' | 'grant' | 'session' | { readonly field: string }
}

export interface Row {
  readonly class: OcsfClass
  /** OCSF activity_id; `verb`: from `data.verb`; `method`: from `data.method`; `how`: from `data.how`. */
  readonly activity: number | 'verb' | 'method' | 'how'
  /** The name that activity_id 99 requires. */
  readonly activityName?: string
  readonly severity: Severity
  readonly needs: readonly Fact[]
  readonly entity?: EntityRow
  readonly data: Fields
}

/** A row as it is written, its literal types kept. */
export function row<const R extends Row>(value: R): R {
  return value
}
/** The row of an event about a managed entity. */
export const entityRow = <
  const A extends number,
  const N extends readonly Fact[],
  const D extends Fields,
>(
  entity: EntityRow,
  activity: A,
  needs: N,
  data: D,
  activityName?: string,
  severity: Severity = 1,
): Omit<Row, 'data' | 'needs'> & { readonly data: D; readonly needs: N } => ({
  class: 'entity',
  activity,
  severity,
  needs,
  entity,
  data,
  ...(activityName === undefined ? {} : { activityName }),
})

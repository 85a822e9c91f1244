/**
 * The event catalogue: one row per code says its OCSF 1.8.0 class, activity and severity, which facts it cannot
 * be written without, and for every extra field its type and whether it is public, personal or secret.
 * design: audit.md section 1.
 */
import { AuditError } from './errors.ts'
import {
  apiData,
  certificate,
  certificateData,
  cutData,
  device,
  findingData,
  grant,
  grantData,
  movedData,
  lockData,
  epochBeginData,
  epochEndData,
  logData,
  nodeData,
  otData,
  partData,
  policy,
  policyData,
  processData,
  recording,
  rolloutData,
  session,
  sessionData,
  sink,
  sinkData,
  target,
  trafficData,
  tunnelData,
} from './event-data.ts'
import { entityRow, row } from './event-row.ts'
import type { Json, Kind, Privacy, Row } from './event-row.ts'

const recordingPart = row({
  class: 'eventLog',
  activity: 4,
  severity: 1,
  needs: ['session'],
  data: partData,
})
const apiCall = { class: 'api', severity: 1, needs: [], data: apiData } as const

/** Every event Sallyport writes. Adding one is adding a row here. */
export const events = {
  'auth.login': row({
    class: 'authentication',
    activity: 1,
    severity: 1,
    needs: ['actor'],
    data: { client: 'public text?', serial: 'public text?' },
  }),
  'auth.logout': row({
    class: 'authentication',
    activity: 2,
    severity: 1,
    needs: ['actor'],
    data: { client: 'public text?', login: 'public text?' },
  }),
  'auth.stepup': row({
    class: 'authentication',
    activity: 99,
    activityName: 'Step up',
    severity: 1,
    needs: ['actor'],
    data: { client: 'public text?' },
  }),

  'grant.use': row({
    class: 'authorizeSession',
    activity: 1,
    severity: 1,
    needs: ['actor', 'grant'],
    data: { verbs: 'public texts?', uses: 'public integer?' },
  }),

  'device.enroll': entityRow(device, 6, ['device'], {
    ...certificateData,
    serial: 'public text?',
    zone: 'public text?',
    site: 'public text?',
    labels: 'public json?',
    by: 'public text?',
  }),
  'device.retire': entityRow(device, 7, ['device'], movedData),
  'device.quarantine': entityRow(device, 12, ['device'], movedData, undefined, 4),
  'device.resume': entityRow(device, 13, ['device'], movedData),
  'cert.issue': entityRow(certificate, 1, [], certificateData),
  'cert.renew': entityRow(certificate, 3, [], certificateData),
  'cert.revoke': entityRow(certificate, 9, [], certificateData, undefined, 3),
  'grant.request': entityRow(grant, 1, ['actor', 'grant'], grantData),
  'grant.approve': entityRow(grant, 99, ['actor', 'grant'], grantData, 'Approve'),
  'grant.reject': entityRow(grant, 99, ['actor', 'grant'], grantData, 'Reject', 2),
  'grant.activate': entityRow(grant, 10, ['grant'], grantData),
  'grant.extend': entityRow(grant, 3, ['grant'], grantData),
  'grant.revoke': entityRow(grant, 11, ['grant'], grantData, undefined, 2),
  'grant.expire': entityRow(grant, 11, ['grant'], grantData),
  'grant.burn': entityRow(grant, 11, ['grant'], grantData),
  'policy.upload': entityRow(policy, 1, [], policyData),
  'policy.activate': entityRow(policy, 10, [], policyData, undefined, 2),
  'policy.rollback': entityRow(policy, 10, [], policyData, undefined, 3),
  'session.kill': entityRow(session, 11, ['session'], cutData, undefined, 3),
  'session.lock': entityRow(target, 12, ['actor'], lockData, undefined, 3),
  'session.unlock': entityRow(target, 13, ['actor'], lockData, undefined, 2),
  'session.watch': entityRow(session, 2, ['actor', 'session'], {}),
  'session.pause': entityRow(session, 12, ['session'], {}, undefined, 3),
  'session.resume': entityRow(session, 13, ['session'], {}, undefined, 2),
  'recording.read': entityRow(recording, 2, ['actor', 'session'], partData),
  'recording.view': entityRow(recording, 2, ['actor', 'session'], {
    ...partData,
    ranges: 'public json?',
  }),
  'sink.add': entityRow(sink, 1, ['actor'], sinkData, undefined, 2),
  'sink.change': entityRow(sink, 3, ['actor'], sinkData, undefined, 2),
  'sink.remove': entityRow(sink, 4, ['actor'], sinkData, undefined, 3),

  'session.start': row({
    class: 'network',
    activity: 1,
    severity: 1,
    needs: ['actor', 'device', 'process', 'grant', 'session'],
    data: sessionData,
  }),
  // What the obligation `notify` is: it stands before the session does.
  'notify.session': row({
    class: 'finding',
    activity: 1,
    severity: 3,
    needs: ['actor', 'device', 'process', 'grant', 'session'],
    data: findingData,
  }),
  'session.deny': row({
    class: 'network',
    activity: 5,
    severity: 2,
    needs: ['actor'],
    data: sessionData,
  }),
  'session.stats': row({
    class: 'network',
    activity: 6,
    severity: 1,
    needs: ['session'],
    data: trafficData,
  }),
  'session.end': row({
    class: 'network',
    activity: 'how',
    severity: 1,
    needs: ['session'],
    data: {
      ...processData,
      // Unknown, and then absent, when recovery ends a session that a crash cut off.
      bytes_in: 'public integer?',
      bytes_out: 'public integer?',
      duration_ms: 'public integer?',
      how: 'public text?',
      start_idx: 'public integer?',
      verbs: 'public json?',
      denials: 'public integer?',
      decision_ids: 'public texts?',
      recording_root: 'public text?',
      time_to_cut_ms: 'public integer?',
      by: 'personal text?',
    },
  }),
  'ot.write': row({ class: 'network', activity: 6, severity: 2, needs: ['session'], data: otData }),
  'ot.deny': row({ class: 'network', activity: 5, severity: 3, needs: ['session'], data: otData }),
  'ot.violation': row({
    class: 'network',
    activity: 3,
    severity: 4,
    needs: ['session'],
    data: otData,
  }),

  'http.request': row({
    class: 'http',
    activity: 'method',
    severity: 1,
    needs: [],
    data: {
      method: 'public text',
      path: 'public text?',
      host: 'public text?',
      count: 'public integer?',
      response_code: 'public integer?',
      bytes_in: 'public integer?',
      bytes_out: 'public integer?',
      duration_ms: 'public integer?',
      query: 'secret text?',
      cookie: 'secret text?',
      authorization: 'secret text?',
    },
  }),

  'tunnel.up': row({
    class: 'tunnel',
    activity: 1,
    severity: 1,
    needs: ['device'],
    data: tunnelData,
  }),
  'tunnel.down': row({
    class: 'tunnel',
    activity: 2,
    severity: 1,
    needs: ['device'],
    data: tunnelData,
  }),
  'tunnel.renew': row({
    class: 'tunnel',
    activity: 3,
    severity: 1,
    needs: ['device'],
    data: tunnelData,
  }),

  'policy.decision': row({
    ...apiCall,
    activity: 99,
    activityName: 'Decide',
    // How many records the chain of decisions has whose head is `record_sha256`.
    data: { ...apiData, count: 'public integer?' },
  }),
  'admin.call': row({
    ...apiCall,
    activity: 'verb',
    needs: ['actor'],
    data: { ...apiData, verb: 'public text' },
  }),

  'log.open': row({ class: 'eventLog', activity: 6, severity: 1, needs: [], data: logData }),
  'log.close': row({ class: 'eventLog', activity: 7, severity: 1, needs: [], data: logData }),
  'log.rotate': row({ class: 'eventLog', activity: 5, severity: 1, needs: [], data: logData }),
  'log.recovered': row({ class: 'eventLog', activity: 8, severity: 3, needs: [], data: logData }),
  'log.prune': row({ class: 'eventLog', activity: 2, severity: 3, needs: [], data: logData }),
  'log.epoch_end': row({
    class: 'eventLog',
    activity: 5,
    severity: 3,
    needs: [],
    data: epochEndData,
  }),
  'log.epoch_begin': row({
    class: 'eventLog',
    activity: 5,
    severity: 3,
    needs: [],
    data: epochBeginData,
  }),
  'log.export': row({ class: 'eventLog', activity: 3, severity: 1, needs: [], data: logData }),
  'log.heartbeat': row({
    class: 'eventLog',
    activity: 99,
    activityName: 'Heartbeat',
    severity: 1,
    needs: [],
    data: {
      active_root: 'public text',
      active: 'public integer',
      previous: 'public integer?',
      // Since the heartbeat before, or the opening, by a clock that nobody sets.
      elapsed_ms: 'public integer?',
      clock_offset_ms: 'public integer?',
      sinks: 'public json?',
    },
  }),
  'log.state': row({
    class: 'eventLog',
    activity: 99,
    activityName: 'State',
    severity: 3,
    needs: [],
    data: { ...logData, from: 'public text', to: 'public text' },
  }),
  'recording.part': recordingPart,
  'recording.end': recordingPart,
  'recording.fail': row({
    class: 'eventLog',
    activity: 99,
    activityName: 'Recording failed',
    severity: 4,
    needs: ['session'],
    data: partData,
  }),
  'sink.rejected': row({
    class: 'eventLog',
    activity: 99,
    activityName: 'Rejected by sink',
    severity: 4,
    needs: [],
    data: { sink: 'public text', idx: 'public integer?', detail: 'public json?' },
  }),
  'sink.gap': row({
    class: 'eventLog',
    activity: 99,
    activityName: 'Gap at sink',
    severity: 4,
    needs: [],
    data: {
      sink: 'public text',
      from: 'public integer?',
      to: 'public integer?',
      detail: 'public json?',
    },
  }),

  'finding.process_mismatch': row({
    class: 'finding',
    activity: 1,
    severity: 4,
    needs: [],
    data: findingData,
  }),
  'finding.witness_conflict': row({
    class: 'finding',
    activity: 1,
    severity: 5,
    needs: [],
    data: findingData,
  }),
  'finding.break_glass': row({
    class: 'finding',
    activity: 1,
    severity: 4,
    needs: [],
    data: findingData,
  }),
  'finding.drift': row({
    class: 'finding',
    activity: 1,
    severity: 3,
    needs: ['device'],
    data: findingData,
  }),
  // Gateways on one store decide by different policies, and when they do no more.
  'finding.policy': row({
    class: 'finding',
    activity: 1,
    severity: 3,
    needs: [],
    data: findingData,
  }),
  'finding.intrusion': row({
    class: 'finding',
    activity: 1,
    severity: 4,
    needs: [],
    data: findingData,
  }),

  'node.start': row({ class: 'application', activity: 3, severity: 1, needs: [], data: nodeData }),
  'node.stop': row({ class: 'application', activity: 4, severity: 1, needs: [], data: nodeData }),
  'node.update': row({ class: 'application', activity: 8, severity: 2, needs: [], data: nodeData }),
  'device.update': row({
    class: 'application',
    activity: 8,
    severity: 2,
    needs: ['device'],
    data: rolloutData,
  }),
  'rollout.change': row({
    class: 'application',
    activity: 99,
    activityName: 'Rollout',
    severity: 2,
    needs: [],
    data: rolloutData,
  }),
  'device.inventory': row({
    class: 'inventory',
    activity: 2,
    severity: 1,
    needs: ['device'],
    data: { targets: 'public json?', baseline: 'public json?', drift: 'public flag?' },
  }),
} as const satisfies Record<string, Row>

export type EventCode = keyof typeof events
/** Every code, in the order of the catalogue. */
export const eventCodes = Object.keys(events) as readonly EventCode[]

/** session.end reasons that the brief closes; `reason` of other events is the caller's own code. */
export const endReasons = [
  'client_done',
  'grant_burned',
  'window_end',
  'idle',
  'byte_limit',
  'killed',
  'policy_recheck',
  'cert_revoked',
  'agent_lost',
  'target_closed',
  'process_mismatch',
  'recording_failed',
  'audit_state',
  'node_crash',
] as const
export type EndReason = (typeof endReasons)[number]

interface Values {
  readonly text: string
  readonly integer: number
  readonly flag: boolean
  readonly texts: readonly string[]
  readonly json: Json
}
type Value<F> = F extends `${Privacy} ${infer K extends Kind}?`
  ? Values[K]
  : F extends `${Privacy} ${infer K extends Kind}`
    ? Values[K]
    : never
type Optional<D> = { [K in keyof D]: D[K] extends `${string}?` ? K : never }[keyof D]
type DataOf<D> = { readonly [K in Exclude<keyof D, Optional<D>>]: Value<D[K]> } & {
  readonly [K in Optional<D>]?: Value<D[K]> | undefined
}

/** Who acted. `uid` is `"<iss>|<sub>"` for a person, the device or service id otherwise. */
export interface Actor {
  readonly uid: string
  readonly name?: string | undefined
  readonly org?: string | undefined
  readonly party?: 'vendor' | 'staff' | 'service' | 'device' | undefined
  readonly issuer?: string | undefined
  readonly authn?:
    | {
        readonly methods?: readonly string[] | undefined
        readonly acr?: string | undefined
        /** When, epoch seconds. */
        readonly at?: number | undefined
        readonly mfa?: boolean | undefined
      }
    | undefined
}

export type Disposition =
  | 'allowed'
  | 'blocked'
  | 'approved'
  | 'revoked'
  | 'rejected'
  | 'unauthorized'

interface Common {
  /** One sentence a person understands. At most 1,000 characters are kept. */
  readonly message: string
  readonly status: 'success' | 'failure'
  readonly actor?: Actor | undefined
  readonly src?: { readonly ip: string; readonly port?: number | undefined } | undefined
  readonly dst?:
    | {
        readonly ip?: string | undefined
        readonly host?: string | undefined
        readonly port?: number | undefined
      }
    | undefined
  /** Ids as the rest of Sallyport writes them. */
  readonly device?: string | undefined
  readonly process?: string | undefined
  readonly grant?: string | undefined
  readonly session?: string | undefined
  readonly ticket?: string | undefined
  readonly tenant?: string | undefined
  readonly decisions?:
    | readonly {
        readonly id: string
        readonly revision: string
        readonly codes: readonly string[]
      }[]
    | undefined
  readonly disposition?: Disposition | undefined
  /** A closed reason code (for session.end one of `endReasons`). */
  readonly reason?: string | undefined
  /** When it happened, epoch ms, if that is not now. */
  readonly time?: number | undefined
}

/** What an event of code C is given as; `data` is required when its row has a required field. */
export type EventOf<C extends EventCode> = Common & { readonly code: C } & (Record<
    never,
    never
  > extends DataOf<(typeof events)[C]['data']>
    ? { readonly data?: DataOf<(typeof events)[C]['data']> | undefined }
    : { readonly data: DataOf<(typeof events)[C]['data']> }) &
  (C extends 'session.end' ? { readonly reason: EndReason } : unknown)
export type EventInput = { [C in EventCode]: EventOf<C> }[EventCode]

/** The row of a code. Throws event.code for a code that is not in the catalogue. */
export function rowOf(code: string): Row {
  if (!Object.hasOwn(events, code)) throw new AuditError('event.code', `no such event: ${code}`)
  return events[code as EventCode]
}

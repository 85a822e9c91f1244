/** What a control is answered with: rows of proven events, by the name the catalogue gives the question. */
import { checkGrants, judge, sessionsOf } from './verify.mjs'
import type { Event, Proven } from './verify.mjs'

export interface Question {
  readonly proven: Proven
  /** Epoch ms. */
  readonly from: number
  readonly to: number
}

/** A row of evidence: where it stands, and what it says. */
export interface EvidenceRow {
  readonly idx: number
  readonly time: string
  readonly event: string
  readonly who: string
  readonly device: string
  readonly process: string
  readonly session: string
  readonly grant: string
  readonly outcome: string
  readonly detail: string
}

export const columns = [
  'idx',
  'time',
  'event',
  'who',
  'device',
  'process',
  'session',
  'grant',
  'outcome',
  'detail',
] as const satisfies readonly (keyof EvidenceRow)[]

const codeOf = (event: Event): string => String(event['metadata'].event_code)
const factsOf = (event: Event): Record<string, unknown> => event['unmapped'].sallyport

function text(value: unknown): string {
  if (value === undefined || value === null) return ''
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function rowOf(event: Event, detail?: string): EvidenceRow {
  const facts = factsOf(event)
  return {
    idx: event['metadata'].sequence,
    time: new Date(event['time']).toISOString(),
    event: codeOf(event),
    who: text(event['actor']?.user?.name ?? event['actor']?.user?.uid),
    device: text(facts['device']),
    process: text(facts['process']),
    session: text(facts['session']),
    grant: text(facts['grant']),
    outcome: event['status_id'] === 1 ? 'success' : `failure ${text(facts['reason'])}`.trim(),
    detail: detail ?? text(event['message']),
  }
}

function inRange({ proven, from, to }: Question): Event[] {
  return proven.events.filter((event) => event['time'] >= from && event['time'] <= to)
}

type Ask = (question: Question) => EvidenceRow[]
/** Events of these codes, or of codes that begin so where a name ends in a dot. */
function events(...names: string[]): Ask {
  const wanted = (code: string): boolean =>
    names.some((name) => (name.endsWith('.') ? code.startsWith(name) : code === name))
  return (question) =>
    inRange(question)
      .filter((event) => wanted(codeOf(event)))
      .map((event) => rowOf(event))
}

function withField(field: string, ...names: string[]): Ask {
  return (question) =>
    inRange(question)
      .filter((event) => names.includes(codeOf(event)) && factsOf(event)[field] !== undefined)
      .map((event) => rowOf(event, text(factsOf(event)[field])))
}

/** Sessions of people that began without more than one factor, as their identity provider told it. */
function withoutMfa(question: Question): EvidenceRow[] {
  return inRange(question)
    .filter((event) => codeOf(event) === 'session.start' && factsOf(event)['party'] !== 'service')
    .filter((event) => {
      const authn = factsOf(event)['authn'] as { methods?: string[] } | undefined
      const methods = authn?.methods ?? []
      return !methods.includes('mfa') && !methods.includes('hwk') && methods.length < 2
    })
    .map((event) => rowOf(event, `methods ${text(factsOf(event)['authn'])}`))
}

function outsideGrant({ proven, from, to }: Question): EvidenceRow[] {
  const byIdx = new Map(proven.events.map((event) => [event['metadata'].sequence as number, event]))
  return checkGrants(proven.events, proven.first).exceptions.flatMap(({ idx, what }) => {
    const event = byIdx.get(idx)
    if (event === undefined || event['time'] < from || event['time'] > to) return []
    return [rowOf(event, what)]
  })
}

/** The sessions active at the end of the time asked for. */
function activeAt({ proven, to }: Question): EvidenceRow[] {
  return [...sessionsOf(proven.events).values()].flatMap(({ start, end }) =>
    start !== null && start['time'] <= to && (end === null || end['time'] > to)
      ? [rowOf(start, `active at ${new Date(to).toISOString()}`)]
      : [],
  )
}

function logHealth(question: Question): EvidenceRow[] {
  const { gaps } = judge(question.proven, question.from, question.to)
  const silent = gaps.map((gap) => ({
    idx: gap.idx,
    time: new Date(gap.from).toISOString(),
    event: 'heartbeat gap',
    who: '',
    device: '',
    process: '',
    session: '',
    grant: '',
    outcome: gap.kind,
    detail: `no heartbeat until ${new Date(gap.to).toISOString()}`,
  }))
  const told = events(
    'log.open',
    'log.close',
    'log.recovered',
    'log.prune',
    'log.state',
    'sink.',
    'recording.fail',
  )
  return [...silent, ...told(question)]
}

/** Every question a catalogue may ask. A name outside this table is an error of the catalogue. */
export const queries: Readonly<Record<string, Ask>> = {
  sessions: events('session.start', 'session.end', 'session.deny'),
  'active-at': activeAt,
  'no-mfa': withoutMfa,
  'outside-grant': outsideGrant,
  cuts: events('session.kill', 'session.lock', 'session.unlock', 'device.quarantine'),
  grants: events('grant.'),
  offboard: events('grant.revoke', 'cert.revoke', 'device.retire', 'session.kill', 'session.lock'),
  auth: events('auth.'),
  policy: events('policy.upload', 'policy.activate', 'policy.rollback', 'finding.break_glass'),
  certs: events('cert.'),
  crypto: withField('tls_version', 'tunnel.up', 'tunnel.renew'),
  process: (question) => [
    ...withField('observed', 'session.end')(question),
    ...events('finding.process_mismatch')(question),
  ],
  ot: events('ot.'),
  recordings: events('recording.'),
  'log-health': logHealth,
  changes: events('admin.call', 'node.', 'sink.add', 'sink.change', 'sink.remove'),
  inventory: events('device.enroll', 'device.retire', 'device.inventory', 'device.resume'),
}

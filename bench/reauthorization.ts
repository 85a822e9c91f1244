/**
 * Ten thousand live sessions, a policy that no longer allows half of them: how long the loop stands
 * still, and how long until each cut session carries nothing. The log is real, on disk; stores answer
 * from memory, as they would after the first look at each device and grant.
 */
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { hashOf } from '#approval'
import { openLog, type AuditLog } from '#audit'
import type { Candidate, Observed, Obligations, PolicyEngine } from '#policy'
import { Decisions } from '../gateway/decisions.ts'
import type { Device, Process } from '../gateway/devices/device.ts'
import type { Presence } from '../gateway/devices/presence.ts'
import type { Grant } from '../gateway/grants/grant.ts'
import type { Subject } from '../gateway/identity/index.ts'
import { LiveSession } from '../gateway/sessions/live.ts'
import { Asker } from '../gateway/policy/asker.ts'
import { foresee } from '../gateway/sessions/foresee.ts'
import { Reauthorization } from '../gateway/sessions/reevaluate.ts'
import type { SessionRoom } from '../gateway/sessions/room.ts'
import type { Row } from './row.ts'

const SESSIONS = 10_000
const DEVICES = 500
const PER_GRANT = 8
/** How long the loop is looked at while nothing goes on. */
const IDLE_MS = 3_000
const HASH = 'a'.repeat(64)
/** What a loop may stand still at most, in milliseconds: two frames of a screen, and an eighth of a heartbeat. */
const BARS = { stall: 20, cut: 1_000 }

const observed: Observed = {
  phase: 'accepted',
  exe: '/usr/bin/plc',
  sha256: HASH,
  script_sha256: null,
  uid: 0,
  unit: null,
  image: null,
  started_at: 1,
  pid: 1,
  others: [],
}

/** `before` is in force, `after` (looked at beforehand, as an activation does) refuses what stands on one
 * approval. Gives three rows. */
export async function reauthorization(
  engine: PolicyEngine,
  before: Candidate,
  after: Candidate,
): Promise<Row[]> {
  const directory = await mkdtemp(join(tmpdir(), 'sallyport-bench-reauthorization-'))
  const log = await openBenchLog(directory)
  try {
    engine.adopt(before)
    const room = crowdedRoom(engine, log)
    using again = new Reauthorization(room)
    const idle = await longestStall(() => setTimeout(IDLE_MS))
    // As an upload does it, with the candidate in a thread beside what is in force.
    const looking = await longestStall(async () => {
      await using asker = new Asker(after)
      return await foresee(room, (questions) => {
        const inputs = questions.map((facts) =>
          room.decisions.question('session.reevaluate', facts, room.now()),
        )
        return asker.ask('session.reevaluate', inputs)
      })
    })
    const first = new Set(looking.outcome.ended.map(({ session }) => session.id))
    await setTimeout(500)
    const deciding = await longestStall(() => {
      const at = performance.now()
      engine.adopt(after)
      return again.withdraw(() => true, { trigger: 'policy', at, first })
    })
    const cut = deciding.outcome
    const times = cut.map((one) => one.time_to_cut_ms).toSorted((a, b) => a - b)
    if (times.length !== SESSIONS / 2)
      throw new Error(`${times.length} sessions were cut, not ${SESSIONS / 2}`)
    const p99 = times[Math.floor(times.length * 0.99)] ?? Number.NaN
    return [
      {
        metric: 'preview_10k_stall_ms',
        value: looking.ms,
        unit: 'ms',
        reference: `bar ${BARS.stall}; the longest turn of the loop while a bundle is asked about 10,000; of a loop that nobody asks anything ${Math.round(10 * idle.ms) / 10} ms`,
      },
      {
        metric: 'reauth_10k_stall_ms',
        value: deciding.ms,
        unit: 'ms',
        reference: `bar ${BARS.stall}; the longest turn of the loop while 10,000 are decided again`,
      },
      {
        metric: 'reauth_10k_cut_p99_ms',
        value: p99,
        unit: 'ms',
        reference: `bar ${BARS.cut}; from the activation until the session carries nothing; whom the upload's preview named is decided first`,
        spread: `median ${Math.round(times[times.length >> 1] ?? 0)} ms`,
      },
    ]
  } finally {
    await log[Symbol.asyncDispose]()
    await rm(directory, { recursive: true, force: true })
  }
}

/** What a loop stands still at most while `work` goes on, in milliseconds. */
async function longestStall<T>(
  work: () => Promise<T>,
): Promise<{ readonly ms: number; readonly outcome: T }> {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const outcome = await work()
  delay.disable()
  return { ms: delay.max / 1e6, outcome }
}

async function openBenchLog(directory: string): Promise<AuditLog> {
  return openLog({
    directory: join(directory, 'log'),
    origin: 'bench.example/audit/gw/1',
    signers: {
      ed25519: generateKeyPairSync('ed25519').privateKey,
      mlDsa44: generateKeyPairSync('ml-dsa-44').privateKey,
    },
    clock: { now: Date.now },
    random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
    node: 'gw',
    version: 'bench',
    tenant: 'bench.example',
  })
}

function crowdedRoom(engine: PolicyEngine, log: AuditLog): SessionRoom {
  const place = { tenant: 'bench.example', gateway: 'gw', site: 'main', timezone: 'UTC' }
  const decisions = new Decisions(engine, place, Date.now)
  const devices = new Map<string, Device>()
  const presences = new Map<string, Presence>()
  const grants = new Map<string, Grant>()
  for (let at = 0; at < DEVICES; at++) {
    const id = `press-${at}`
    devices.set(id, { id, zone: 'default', state: 'active', labels: {}, created_at: 0 })
    presences.set(id, presenceOf(id))
  }
  const live = new Map<string, LiveSession>()
  const people = new Map<string, Subject>()
  for (let at = 0; at < SESSIONS; at++) {
    const number = Math.floor(at / PER_GRANT)
    const device = `press-${number % DEVICES}`
    const subject = subjectOf(number)
    people.set(subject.id, subject)
    const grant = grantOf(number, device, subject.id)
    grants.set(grant.statement.id, grant)
    const session = sessionOf(at, grant, subject, presences.get(device) ?? presenceOf(device))
    live.set(session.id, session)
  }
  const process = (device: string): Process => ({
    device,
    id: 'plc',
    kind: 'tcp',
    locality: 'device',
    port: 502,
    expect: { sha256: [HASH] },
  })
  const room = {
    log,
    decisions,
    live,
    devices: {
      find: (id: string) => Promise.resolve(devices.get(id)),
      findProcess: (device: string) => Promise.resolve(process(device)),
    },
    grants: { find: (id: string) => Promise.resolve(grants.get(id)) },
    registry: { find: (id: string) => presences.get(id), isCutOff: () => false },
    identity: {
      current: ({ subject }: { subject: string }) => Promise.resolve(people.get(subject)),
    },
    store: { end: () => Promise.resolve() },
    now: Date.now,
    report: (error: unknown, what: string) => {
      throw new Error(what, { cause: error })
    },
    ending: new Set(),
    ended: () => undefined,
  }
  return room as unknown as SessionRoom
}

function presenceOf(device: string): Presence {
  const notAfter = Date.now() + 86_400_000
  return {
    device,
    peer: { serial: `01${device}`, notAfter },
    tls: { version: 'TLSv1.3', cipher: 'TLS_AES_256_GCM_SHA384', group: null, pq: true },
    agent: { version: '0.1.0', version_int: 1000 },
    epoch: 1,
    since: 0,
    listeners: new Map([['plc', observed]]),
  } as unknown as Presence
}

function subjectOf(number: number): Subject {
  const now = Math.floor(Date.now() / 1000)
  return {
    ...({
      id: `https://id.example|v${number}`,
      issuer: 'https://id.example',
      kind: 'human',
    } as const),
    party: 'vendor',
    vendor: 'press-makers',
    email: `v${number}@press.example`,
    groups: [],
    roles: ['vendor'],
    token_exp: now + 7200,
    claims: {},
    break_glass: null,
    authn: { methods: ['pwd'], acr: '', at: now },
  }
}

/** Even grants have two approvals, odd ones a single one: the latter fall. */
function grantOf(number: number, device: string, requester: string): Grant {
  const now = Math.floor(Date.now() / 1000)
  const approvers = number % 2 === 0 ? ['a', 'b'] : ['a']
  const statement: Grant['statement'] = {
    ...({
      v: 1,
      id: `g_${number}`,
      tenant: 'bench.example',
      requester,
      vendor: 'press-makers',
    } as const),
    devices: [device],
    processes: ['plc'],
    ot_level: 1,
    not_before: now - 60,
    not_after: now + 7200,
    max_duration_s: 7200,
    reason: 'x',
    ticket: null,
    created_at: now - 60,
  }
  const hash = hashOf(statement)
  return {
    statement,
    hash,
    state: 'active',
    requester_email: null,
    approvals: approvers.map((by) => ({
      by,
      email: null,
      signature: null,
      at: now,
      hash,
      decision_id: 'd_1',
    })),
    approvals_asked: 1,
    approvals_needed: 1,
    first_used_at: now - 30,
    uses: 1,
    bytes: 0,
    extension: null,
    ended: null,
  }
}

function sessionOf(at: number, grant: Grant, subject: Subject, presence: Presence): LiveSession {
  const now = Date.now()
  const session = new LiveSession({
    id: `s_${String(at).padStart(26, '0')}`,
    grant: grant.statement.id,
    device: grant.statement.devices[0] ?? '',
    process: 'plc',
    kind: 'tcp',
    subject,
    login: { subject: subject.id, login: 'l', client: 'c', authn: subject.authn },
    source: { ip: '192.0.2.7', tls: { version: 'TLSv1.3', cipher: 'x' } },
    obligations: obligationsAt(now),
    decision: { id: 'd_1', revision: 'bench', codes: ['grant.live'] },
    secret: new Uint8Array(32),
    presence,
    openedAt: now - 30_000,
    expiresAt: now + 3_600_000,
  })
  session.startIdx = 1
  session.advance('recorded')
  session.streams.add({
    source: session.source,
    observed,
    lease: undefined,
    toldEnd: session.end(),
    carrier: { cut: () => Promise.resolve() },
    gate: undefined,
    narrowed: undefined,
  })
  return session
}

function obligationsAt(now: number): Obligations {
  return {
    max_duration_s: 7200,
    not_after: Math.floor(now / 1000) + 7200,
    idle_timeout_s: 900,
    reeval_after_s: 300,
    max_bandwidth_bps: 10_000_000,
    max_bytes: 1 << 28,
    max_streams: 8,
    ot_level: 1,
    approvals: 1,
    record: true,
    justification: true,
    supervise: false,
    notify: false,
    ot_each: false,
    processes: ['plc'],
    methods: ['GET'],
    ot_windows: [],
  }
}

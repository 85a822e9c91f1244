/** Who is connected and what is open: the registry, the sessions, what carries, records and withdraws them. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { ActiveLine } from '#audit'
import { instant, stillStands } from '#ca'
import { systemClock } from '#tunnel'
import type { AnswerStore } from './answers.ts'
import { AppSignIns } from './access/apps.ts'
import { AppForwarder } from './access/http.ts'
import { Openings } from './access/openings.ts'
import { SessionSockets } from './access/sockets.ts'
import type { Config } from './config.ts'
import type { Decisions } from './decisions.ts'
import type { DeviceStore } from './devices/device.ts'
import { InventoryWatch } from './devices/drift.ts'
import { watchEnds } from './grants/expiry.ts'
import { ReviewWatch, type ReviewStore } from './grants/review.ts'
import type { EndingDevices } from './devices/ending.ts'
import { Registry } from './devices/presence.ts'
import { openEndings } from './endings.ts'
import { now, originOf, type Foundation, type Report, type Undo } from './foundation.ts'
import { VERSION } from './version.ts'
import { refusePage } from './listen/page.ts'
import { Locks, type Owned } from './locks/locks.ts'
import type { AuditorStore } from './recordings/auditors.ts'
import type { NoticeDispatch } from './notices/dispatch.ts'
import { openNotices } from './notices/notices.ts'
import { Recordings } from './recordings/recordings.ts'
import { RolledAgents } from './rollouts/agents.ts'
import { Rollouts } from './rollouts/rollouts.ts'
import { Allotments } from './sessions/allotment.ts'
import { ChangeWatch } from './sessions/changes.ts'
import { Questions } from './sessions/consent.ts'
import { Reauthorization } from './sessions/reevaluate.ts'
import type { SessionRoom } from './sessions/room.ts'
import { watchFlows } from './sessions/stats.ts'
import { Supervision } from './sessions/supervise.ts'
import { SqliteInventoryStore } from './store/sqlite/inventories.ts'
import { SqliteNoticeStore } from './store/sqlite/notices.ts'
import { SqliteRolloutStore } from './store/sqlite/rollouts.ts'
import type { Stores } from './stores.ts'

/** Devices, sessions, and what carries them. */
export interface Access {
  readonly registry: Registry
  readonly inventories: InventoryWatch
  readonly room: SessionRoom
  readonly reauthorization: Reauthorization
  readonly locks: Locks
  readonly signIns: AppSignIns
  readonly openings: Openings
  readonly apps: AppForwarder
  readonly sockets: SessionSockets
  readonly recordings: Recordings
  readonly auditors: AuditorStore
  readonly reviews: ReviewStore
  /** Of writes with a key. */
  readonly answers: AnswerStore
  readonly glass: ReviewWatch
  /** Undefined where no channel is configured. */
  readonly notices: NoticeDispatch | undefined
  readonly rollouts: Rollouts
  readonly rolled: RolledAgents
  readonly supervision: Supervision
  /** What other gateways do to grants, locks, devices and people; undefined where there are none. */
  readonly changes: ChangeWatch | undefined
  /** What other gateways say of certificates has ended; undefined where there are none. */
  readonly ending: EndingDevices | undefined
}

export async function openAccess(
  config: Config,
  foundation: Foundation,
  decisions: Decisions,
  report: Report,
  undo: Undo,
): Promise<Access> {
  const { thread, log, identity, caStore, stores: shared } = foundation
  const { grants, reviews, answers, auditors } = shared
  const registry = new Registry()
  const signIns = new AppSignIns()
  const recordings = openRecordings(config, { auditors, log, report })
  const ending = openEndings(config, foundation, () => {
    return { registry, live: room.live, reauthorization, report }
  })
  const room: SessionRoom = {
    log,
    store: shared.sessions,
    grants,
    allotments: new Allotments(grants, report),
    questions: new Questions(),
    devices: ending ?? shared.devices,
    registry,
    decisions,
    identity,
    live: new Map(),
    ending: new Set(),
    recordings,
    stands: (peer) => stillStands(peer, { store: caStore, now: instant(now()) }),
    now,
    report,
    ended: (session) => {
      supervision.forget(session)
      apps.close(session.id)
      signIns.forget(session.id)
      sockets.forget(session.id)
    },
  }
  const openings = new Openings()
  const carrying = { room, openings, refuse: refusePage }
  const apps = undo.use(new AppForwarder({ ...carrying, log, signIns }))
  const sockets = new SessionSockets({ ...carrying, origin: originOf(config) })
  await closeCrashed(room)
  if (shared.before !== undefined) await closeCrashed({ store: shared.before, now })
  await recordings.recover()
  undo.use(watchFlows(room))
  undo.use(watchEnds({ log, store: room.grants, time: shared.time, now, report }))
  const glass = undo.use(new ReviewWatch({ log, reviews, now, report }))
  log.setHeartbeat(() => heartbeatOf(room))
  const reauthorization = undo.use(new Reauthorization(room))
  // From here on what others do is heard of: what they have locked by now is read below.
  let held: Locks | undefined
  /** Of people who changed, here or at another gateway: their sessions, and whether a lock is on them now. */
  const judge = async (subjects: ReadonlySet<string>, at: number): Promise<void> => {
    const touches = ({ subject }: { subject: { id: string } }) => subjects.has(subject.id)
    const decided = reauthorization.withdraw(touches, { trigger: 'identity', at })
    const relinked = Promise.resolve(held?.relink()).then(async () => {
      const shut = new Set([...subjects].filter((subject) => held?.shutsOut(subject)))
      const under = ({ subject }: { subject: { id: string } }) => shut.has(subject.id)
      if (shut.size > 0) await reauthorization.withdraw(under, { trigger: 'lock', at })
    })
    await Promise.all([decided, relinked])
  }
  const relock = async () => await held?.refresh()
  const people = async (subs: ReadonlySet<string>, at: number) =>
    await judge(new Set([...subs].map((sub) => `${identity.issuer}|${sub}`)), at)
  const endings = async (ids?: ReadonlySet<string>) => await ending?.follow(ids)
  const heard = { room, reauthorization, relock, people, endings }
  const changes = await watchChanges(shared, heard, undo)
  // What was said while this node was down; from here on it hears of it.
  await endings()
  const supervision = undo.use(
    new Supervision(
      room,
      async (session, cause) => await reauthorization.end(session, cause),
      () => notices?.poke(),
    ),
  )
  const store = new SqliteInventoryStore(thread)
  const watching = { store, log, reauthorization, clock: systemClock, now, report }
  const inventories = undo.use(new InventoryWatch(watching))
  // From here on no decision is made without them.
  const everybody = async () => await peopleOf(identity)
  const sharing = shared.changes !== undefined
  const locks = await Locks.open({
    store: shared.locks,
    shared: sharing,
    log,
    people: everybody,
    now,
  })
  held = locks
  // What was heard of while they were first read was taken for read.
  if (sharing) await locks.refresh()
  decisions.locks = locks
  identity.onChange(({ subject }) => {
    judge(new Set([subject]), performance.now()).catch((error: unknown) =>
      report(error, 'which accounts are under a lock'),
    )
  })
  const { devices } = room
  const notices = openNotices(config.notices, {
    store: new SqliteNoticeStore(thread),
    grants,
    reviews,
    devices,
    decisions,
    identity,
    waiting: () => unwatchedOf(supervision),
    now,
    report,
    origin: originOf(config),
  })
  if (notices !== undefined) undo.use(notices)
  const rolled = new RolledAgents(join(config.data, 'updates'))
  const rollouts = undo.use(
    new Rollouts({
      store: new SqliteRolloutStore(thread),
      devices: sharing ? ofThisGateway(config, foundation, devices) : devices,
      agents: rolled,
      log,
      clock: systemClock,
      now,
      report,
    }),
  )
  const inside = { registry, inventories, room, reauthorization, locks, rollouts, rolled }
  const carried = { supervision, signIns, openings, apps, sockets, recordings, auditors }
  return { ...inside, ...carried, reviews, answers, glass, notices, changes, ending }
}

/** From here on this node hears of what others do to grants, locks, devices and people, where it shares them. */
async function watchChanges(
  { changes, handOver, writable }: Stores,
  rest: {
    readonly room: SessionRoom
    readonly reauthorization: Reauthorization
    readonly relock: () => Promise<void>
    readonly people: (subs: ReadonlySet<string>, at: number) => Promise<void>
    readonly endings: (devices?: ReadonlySet<string>) => Promise<void>
  },
  undo: Undo,
): Promise<ChangeWatch | undefined> {
  if (changes === undefined) return undefined
  const monotonic = () => performance.now()
  const of = { ...rest, changes, writable, seeing: handOver, monotonic }
  return undo.use(await ChangeWatch.open(of))
}

/** Who may be connected here: a device of another gateway is not reached, and is nobody to wait for. */
function ofThisGateway(
  { tenant }: Config,
  { caStore }: Foundation,
  devices: DeviceStore,
): Pick<DeviceStore, 'list'> {
  return {
    async list() {
      const here = await caStore.certifiedDevices(tenant, instant(now()))
      return (await devices.list()).filter(({ id }) => here.has(id))
    },
  }
}

/** The sessions that wait for a supervisor, in the words of notices. */
function unwatchedOf(supervision: Supervision) {
  return supervision.waiting().map(({ session: { id, grant }, since }) => {
    return { session: id, grant, at: Math.floor(since / 1000) }
  })
}

/** Every account, with the human being it is of. */
async function peopleOf(identity: Foundation['identity']): Promise<readonly Owned[]> {
  const { issuer, accounts } = identity
  const found: Owned[] = []
  for (let after = ''; ;) {
    const page = await accounts.list(after, 500)
    for (const { sub, vendor, person, outside, disabled, roles } of page) {
      const admin = outside === null && !disabled && roles.includes('admin')
      const administers = admin && (await canSignIn(identity, sub))
      found.push({ identity: `${issuer}|${sub}`, company: vendor, person, administers })
    }
    const last = page.at(-1)
    if (last === undefined || page.length < 500) return found
    after = last.sub
  }
}

/** Whose passkeys were taken and who has no password signs in to nothing, until a link of `account renew` is used. */
async function canSignIn(
  { accounts, passkeys }: Foundation['identity'],
  sub: string,
): Promise<boolean> {
  return (await accounts.hasPassword(sub)) || (await passkeys.list(sub)).length > 0
}

const RECORDING_BYTES = 256 * 1024 * 1024
const FLOOR_BYTES = 64 * 1024 * 1024

function openRecordings(
  { data, recordings: settings = {} }: Config,
  { auditors, log, report }: { auditors: AuditorStore; log: Foundation['log']; report: Report },
): Recordings {
  return new Recordings({
    directory: join(data, 'recordings'),
    auditors,
    log,
    floorBytes: settings.floor_bytes ?? FLOOR_BYTES,
    sessionBytes: settings.session_bytes ?? RECORDING_BYTES,
    terminalInput: settings.terminal_input ?? false,
    version: VERSION,
    now,
    random: (bytes) => randomBytes(bytes),
    report,
  })
}

/** The sessions whose start is in the log and whose end is not. */
export function heartbeatOf({ live, ending }: Pick<SessionRoom, 'live' | 'ending'>): ActiveLine[] {
  return [...live.values(), ...ending]
    .filter(({ startIdx }) => startIdx > 0)
    .map(({ id, grant, device, process, subject, kind, startIdx }) => ({
      session: id,
      grant,
      device,
      process,
      party: subject.party,
      kind,
      startIdx,
    }))
}

/** What cannot be recorded must not go on: every session ends when the log is lost. Gives what stops it. */
export function onLogState(
  { log, logger }: Foundation,
  { room, reauthorization }: Access,
  report: Report,
): () => void {
  const why = { reason: 'audit_state', code: 'log.unavailable' } as const
  return log.onState((state, detail) => {
    const level = state === 'OK' ? 'info' : state === 'DRAIN' ? 'error' : 'warn'
    logger[level]({ state, detail }, 'audit log changed its state')
    if (state !== 'DRAIN') return
    for (const session of room.live.values())
      reauthorization
        .end(session, { ...why, message: 'the log cannot be written' })
        .catch((error: unknown) =>
          report(error, `the end of session ${session.id} could not be recorded`),
        )
  })
}

/** The log's own recovery wrote `session.end` for what a crash left open; the list follows it. */
async function closeCrashed(room: Pick<SessionRoom, 'store' | 'now'>): Promise<void> {
  const at = Math.floor(room.now() / 1000)
  for (const { id, bytes_in, bytes_out, connections } of await room.store.open())
    await room.store.end({
      id,
      at,
      reason: 'node_crash',
      bytes_in,
      bytes_out,
      connections,
      time_to_cut_ms: null,
    })
}

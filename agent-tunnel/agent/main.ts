/**
 * The agent as a program: a tunnel that is kept up, the renewal of the certificate, the watch over the
 * targets, and what serves the streams, put together. It dials out and never listens; it takes no
 * address from the gateway. While its owner cuts the device off there is none of all that.
 */
import { systemClock } from '#tunnel'
import type { Clock } from '#tunnel'
import { DeviceClock } from './clock.ts'
import type { AgentConfig } from './config.ts'
import { Consents } from './consent.ts'
import { renew } from './enrol.ts'
import { AgentError, messageOf } from './errors.ts'
import { atFirstReached } from './gateways.ts'
import { Forwarder } from './forward.ts'
import { openIdentity } from './pkcs11.ts'
import { Island } from './island.ts'
import type { Identity, Pair } from './identity.ts'
import type { Log } from './log.ts'
import { Renewal } from './renewal.ts'
import { ListenerWatch } from './reports.ts'
import { ProcessScope } from './scope/owner.ts'
import { StatusFile } from './status.ts'
import type { Anchors } from './trust.ts'
import type { LogWitness } from './witness.ts'
import { Tunnels } from './tunnels.ts'
import { openTwoKeys } from './two-keys.ts'
import { fetchUpdate } from './update/fetch.ts'
import { Updater, type Started } from './update/updater.ts'

export interface RunOptions {
  /** Aborting it ends the run: open streams are cut, the tunnel is closed. */
  readonly signal: AbortSignal
  readonly log: Log
  /** Monotonic time and timers; tests give their own. */
  readonly clock?: Clock
  /** The system's date, epoch ms. */
  readonly system?: () => number
  /** Uniform in [0, 1). */
  readonly random?: () => number
  readonly scope?: ProcessScope
  /** Is given, once, what cuts the device off until its owner lifts that: for a signal of theirs. */
  readonly onCut?: (cut: () => void) => void
  /** How this agent was started, where another one can be started in its place; absent: it takes no update. */
  readonly started?: Started | undefined
  /** Told, when the agent has ended, that it did so to be started again as another one. */
  readonly onRestart?: () => void
  /** Keeps the heads of the gateway's log; absent: the log is not watched from here. */
  readonly witness?: LogWitness
}

/**
 * Runs the agent until `signal` is aborted, or an update is to be started; then resolves. Rejects with AgentError
 * `identity.token` where the token with its key is gone, for whoever keeps the service to start it again; at once with
 * `identity.missing`, `identity.broken`, `gateway.pin`, `approvers.invalid`, `data.unwritable` or `agent.running`, and with
 * `approvers.invalid` also where the owner lifts the switch over approvers that are gone; everything else that happens later
 * is logged and tried again.
 */
export async function runAgent(config: AgentConfig, options: RunOptions): Promise<void> {
  const identity = openIdentity(config)
  const anchors = identity.anchors(config.rootSha256)
  if (anchors === undefined || identity.pairs().length === 0) {
    throw missing(
      `The device ${config.device} has no certificate yet.`,
      'Run `sallyport agent enroll` with a token for this device.',
    )
  }
  const status = new StatusFile(config.dataDir)
  // Timers of the tunnel do not keep a process alive; between two tunnels this does.
  const alive = setInterval(() => {}, 2 ** 30)
  const { log, clock = systemClock, system = Date.now } = options
  const restarting = new AbortController()
  const signal = AbortSignal.any([options.signal, restarting.signal])
  const device = new DeviceClock({ monotonic: clock, system, dataDir: config.dataDir })
  const served = { count: () => 0 }
  using updater = openUpdater(config, options, {
    identity,
    anchors,
    clock: device,
    served,
    restart: () => restarting.abort(),
  })
  using island = new Island(config.dataDir, clock, log)
  const parts = { identity, anchors, status, island, clock: device, updater, served }
  options.onCut?.(() => island.cut(new Date(system()).toISOString()))
  try {
    while (!signal.aborted) {
      if (island.on) {
        status.update({ state: 'island', gateway: null, tls: null })
        await island.until(false, signal)
      } else await live(config, { ...options, signal }, parts)
    }
  } finally {
    clearInterval(alive)
    status.update({ state: 'stopped', gateway: null, tls: null })
    log('info', 'agent.stopped')
  }
  if (restarting.signal.aborted && !options.signal.aborted) options.onRestart?.()
}

interface Updating extends Pick<Parts, 'identity' | 'anchors' | 'clock' | 'served'> {
  readonly restart: () => void
}

/** Who takes updates for as long as the agent runs: an agent on trial is on trial while it is cut off, too. */
function openUpdater(
  config: AgentConfig,
  options: RunOptions,
  { identity, anchors, clock, served, restart }: Updating,
): Updater {
  const { log, clock: monotonic = systemClock, random = Math.random } = options
  return new Updater({
    dataDir: config.dataDir,
    started: options.started,
    monotonic,
    random,
    log,
    restart,
    now: () => Math.max(clock.now(), clock.system()),
    serving: () => served.count(),
    fetch: async (update, at, signal) => {
      const dial = { config: { ...config, gateway: at }, anchors, pair: newestOf(identity) }
      const times = { now: () => clock.now(), system: () => clock.system() }
      return await fetchUpdate(update, { ...dial, ...times }, signal)
    },
  })
}

interface Parts {
  readonly identity: Identity
  readonly anchors: Anchors
  readonly status: StatusFile
  readonly island: Island
  readonly clock: DeviceClock
  readonly updater: Updater
  /** How many streams are being opened or open. */
  readonly served: { count: () => number }
}

/** Keeps a tunnel until the owner cuts the device off, or the agent ends. */
async function live(config: AgentConfig, options: RunOptions, parts: Parts): Promise<void> {
  const { island } = parts
  const over = new AbortController()
  const ended = AbortSignal.any([options.signal, over.signal])
  void island.until(true, ended).then(() => over.abort())
  try {
    await keep(config, { ...options, signal: ended }, parts)
  } finally {
    over.abort()
  }
}

async function keep(
  config: AgentConfig,
  options: RunOptions,
  { identity, anchors, status, island, clock, updater, served }: Parts,
): Promise<void> {
  const { signal, log, clock: monotonic = systemClock, random = Math.random } = options
  const { scope = new ProcessScope(), system = Date.now } = options
  const { targets, acceptDeadlineMs, dataDir } = config
  for (const { notBefore } of identity.pairs()) clock.notBefore(notBefore)
  const twoKeys = openTwoKeys(config, { system, monotonic, log })
  using consents = new Consents({
    dataDir,
    clock: monotonic,
    now: () => clock.now(),
    waitMs: config.consentWaitMs,
    log,
  })
  const forwarder = new Forwarder({
    ...(twoKeys === undefined ? {} : { twoKeys }),
    targets: knowing(dataDir, targets),
    scope,
    clock: monotonic,
    acceptDeadlineMs,
    consents,
    log,
    ownerChanged: (session, observed) => tunnels.tell({ type: 'owner_changed', session, observed }),
  })
  using watch = new ListenerWatch({
    scope,
    targets,
    clock: monotonic,
    changed: (report) => {
      log('info', 'targets.changed', { ...report })
      status.update({ unreadable: report.unreadable })
      tunnels.tell({ type: 'targets', ...report })
    },
    failed: (error) => log('error', 'targets.unseen', { reason: messageOf(error) }),
  })
  const tunnels = new Tunnels({
    config,
    identity,
    anchors,
    status,
    clock,
    monotonic,
    random,
    log,
    signal,
    targets: () => watch.current,
    look: () => watch.lookNow(),
    serve: (offer) => forwarder.serve(offer),
    serving: () => forwarder.serving,
    cutOff: () => island.on,
    renew: () => renewal.ask(),
    updates: updater,
    watch:
      options.witness === undefined
        ? undefined
        : { witness: options.witness, onConflict: config.onLogConflict },
  })
  using renewal = new Renewal({
    clock,
    monotonic,
    random,
    log,
    pair: () => newestOf(identity),
    renew: (pair) =>
      atFirstReached(config, (at) => renew({ config: at, clock, identity, signal }, anchors, pair)),
    renewed: (pair) => tunnels.use(pair),
  })
  signal.addEventListener('abort', () => forwarder.drain(), { once: true })
  served.count = () => forwarder.serving
  await watch.start()
  await tunnels.run()
}

/** The same targets; each program to start knows what it must not see. */
function knowing(dataDir: string, targets: AgentConfig['targets']): AgentConfig['targets'] {
  return new Map(
    [...targets].map(([name, target]) => [
      name,
      target.kind === 'spawn' ? { ...target, dataDir } : target,
    ]),
  )
}

function newestOf(identity: Identity): Pair {
  const [pair] = identity.pairs()
  if (pair !== undefined) return pair
  throw missing(
    'The key or certificate of this device is gone.',
    'Restore the data directory, or enrol the device again.',
  )
}

function missing(message: string, next: string): AgentError {
  return new AgentError('identity.missing', message, next)
}

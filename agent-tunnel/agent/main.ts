/**
 * The agent as a program: one loop that keeps a tunnel up, beside it the renewal of the certificate and
 * the watch over the targets. It dials out and never listens; it takes no address from the gateway.
 */
import { randomBytes } from 'node:crypto'
import { systemClock } from '#tunnel'
import type { Clock, Tunnel } from '#tunnel'
import { DeviceClock } from './clock.ts'
import type { AgentConfig } from './config.ts'
import { Control } from './control.ts'
import { openLink } from './dial.ts'
import type { Link } from './dial.ts'
import { renew } from './enrol.ts'
import { AgentError, messageOf } from './errors.ts'
import { Forwarder } from './forward.ts'
import { Identity } from './identity.ts'
import type { Pair } from './identity.ts'
import type { Log } from './log.ts'
import { after, fresh } from './reconnect.ts'
import type { Happening, Standing } from './reconnect.ts'
import { Renewal } from './renewal.ts'
import { ListenerWatch } from './reports.ts'
import type { Observed } from './scope/observed.ts'
import { ProcessScope } from './scope/owner.ts'
import { StatusFile } from './status.ts'
import type { Anchors } from './trust.ts'

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
}

/** A renewed certificate is put to use when no stream is open, at the latest at this share of the old one's life. */
const SWITCH_BY = 0.9
const LOOK_MS = 1000
const SWITCH_RETRY_MS = 600_000
const FAREWELL_MS = 2000

/**
 * Runs the agent until `signal` is aborted; then resolves. Rejects at once with AgentError
 * `identity.missing`, `identity.broken`, `gateway.pin` or `agent.running`; everything that happens
 * later is logged and tried again.
 */
export async function runAgent(config: AgentConfig, options: RunOptions): Promise<void> {
  const identity = new Identity(config.dataDir)
  const anchors = identity.anchors(config.rootSha256)
  if (anchors === undefined || identity.pairs().length === 0) {
    throw new AgentError(
      'identity.missing',
      `The device ${config.device} has no certificate yet.`,
      'Run `sallyport agent enroll` with a token for this device.',
    )
  }
  const status = new StatusFile(config.dataDir)
  // Timers of the tunnel do not keep a process alive; between two tunnels this does.
  const alive = setInterval(() => {}, 2 ** 30)
  const agent = new Agent(config, options, { identity, anchors, status })
  try {
    await agent.run()
  } finally {
    clearInterval(alive)
    status.update({ state: 'stopped', gateway: null, tls: null })
  }
}

interface Held {
  readonly identity: Identity
  readonly anchors: Anchors
  readonly status: StatusFile
}

/** Why the loop looks up from a tunnel. */
type Turn =
  | Extract<Happening, { type: 'lost' | 'goaway' }>
  | { readonly type: 'switch' }
  | { readonly type: 'stop' }

class Agent {
  readonly #config: AgentConfig
  readonly #held: Held
  readonly #log: Log
  readonly #signal: AbortSignal
  readonly #monotonic: Clock
  readonly #random: () => number
  readonly #clock: DeviceClock
  readonly #forwarder: Forwarder
  readonly #watch: ListenerWatch
  readonly #renewal: Renewal
  readonly #instance = randomBytes(8).toString('hex')
  readonly #links = new Map<Link, Control>()
  #epoch = 0
  #standing: Standing = fresh
  /** A newer pair than the one the tunnel stands on. */
  #better: Pair | undefined
  #switchNotBefore = -Infinity
  #retryIn = 0

  constructor(config: AgentConfig, options: RunOptions, held: Held) {
    this.#config = config
    this.#held = held
    this.#log = options.log
    this.#signal = options.signal
    const monotonic = options.clock ?? systemClock
    this.#monotonic = monotonic
    this.#random = options.random ?? Math.random
    const system = options.system ?? Date.now
    const clock = new DeviceClock({ monotonic, system, dataDir: config.dataDir })
    for (const { notBefore } of held.identity.pairs()) clock.notBefore(notBefore)
    this.#clock = clock
    const scope = options.scope ?? new ProcessScope()
    const { targets, acceptDeadlineMs } = config
    const { log } = options
    const ownerChanged = (session: string, observed: Observed) => {
      for (const control of this.#links.values())
        control.tell({ type: 'owner_changed', session, observed })
    }
    this.#forwarder = new Forwarder({
      targets,
      scope,
      clock: monotonic,
      acceptDeadlineMs,
      log,
      ownerChanged,
    })
    this.#watch = new ListenerWatch({
      scope,
      targets,
      clock: monotonic,
      changed: (reports) => {
        log('info', 'targets.changed', { targets: reports })
        for (const control of this.#links.values())
          control.tell({ type: 'targets', targets: reports })
      },
      failed: (error) => log('error', 'targets.unseen', { reason: messageOf(error) }),
    })
    this.#renewal = new Renewal({
      clock,
      monotonic,
      random: this.#random,
      log,
      pair: () => this.#newest(),
      renew: (pair) =>
        renew(
          { config, clock, identity: held.identity, signal: options.signal },
          held.anchors,
          pair,
        ),
      renewed: (pair) => {
        this.#better = pair
        this.#switchNotBefore = -Infinity
      },
    })
  }

  async run(): Promise<void> {
    using _watch = this.#watch
    using _renewal = this.#renewal
    await this.#watch.start()
    let link: Link | undefined
    while (!this.#signal.aborted) {
      link ??= await this.#dialUntilUp()
      if (link === undefined) break
      const turn = await this.#turnOf(link)
      if (turn.type === 'stop') break
      if (turn.type === 'switch') {
        link = (await this.#switch()) ?? link
        continue
      }
      if (turn.type === 'goaway') void this.#drain(link.tunnel)
      link = undefined
      await this.#pause(this.#happened(turn))
    }
    await this.#stop()
  }

  #newest(): Pair {
    const [pair] = this.#held.identity.pairs()
    if (pair === undefined) {
      const next = 'Restore the data directory, or enrol the device again.'
      throw new AgentError(
        'identity.missing',
        'The key or certificate of this device is gone.',
        next,
      )
    }
    return pair
  }

  #happened(happening: Happening): number {
    const { standing, waitMs } = after(
      this.#standing,
      happening,
      this.#monotonic.now(),
      this.#random,
    )
    this.#standing = standing
    return waitMs
  }

  async #dialUntilUp(): Promise<Link | undefined> {
    this.#held.status.update({ state: 'dialling', gateway: null, tls: null })
    while (!this.#signal.aborted) {
      try {
        // The newest first; after a failure the one before, which is kept for just that.
        const pairs = this.#held.identity.pairs()
        const pair = pairs[this.#standing.failures % Math.max(1, pairs.length)] ?? this.#newest()
        return await this.#dial(pair)
      } catch (error) {
        if (this.#signal.aborted) return undefined
        this.#report(error, this.#happened({ type: 'failed' }))
      }
      await this.#pause(this.#retryIn)
    }
    return undefined
  }

  #report(error: unknown, retryInMs: number): void {
    this.#retryIn = retryInMs
    const told =
      error instanceof AgentError
        ? {
            code: error.code,
            message: error.message,
            next: error.next,
            server_code: error.serverCode,
          }
        : { code: 'tunnel.failed', message: messageOf(error) }
    // The clock here may say otherwise: the gateway knows that the certificate has ended.
    if (error instanceof AgentError && error.serverCode === 'peer.expired') this.#renewal.ask()
    this.#held.status.update({ last_error: { code: told.code, message: told.message } })
    this.#log('warn', 'tunnel.not_up', { ...told, retry_in_ms: Math.round(retryInMs) })
  }

  async #dial(pair: Pair): Promise<Link> {
    const { identity, anchors, status } = this.#held
    const link = await openLink({
      config: this.#config,
      clock: this.#clock,
      monotonic: this.#monotonic,
      anchors,
      pair,
      instance: this.#instance,
      epoch: ++this.#epoch,
      targets: this.#watch.current,
      signal: this.#signal,
    })
    identity.markConnected(pair.slot)
    const newest = this.#newest()
    this.#better = newest.slot === pair.slot ? undefined : newest
    if (this.#better !== undefined) this.#switchNotBefore = this.#monotonic.now() + SWITCH_RETRY_MS
    this.#take(link)
    this.#happened({ type: 'up' })
    const certificate = {
      serial: pair.leaf.serialNumber.toLowerCase(),
      not_after: pair.leaf.validToDate.toISOString(),
    }
    const { gateway, tls } = link
    status.update({ state: 'connected', gateway, tls, certificate, last_error: null })
    this.#log('info', 'tunnel.up', { gateway, tls, certificate, clock_off_ms: this.#clock.offMs })
    return link
  }

  /** Wires a new tunnel up. */
  #take(link: Link): void {
    const { tunnel } = link
    const control = new Control(link.control, {
      renew: () => this.#renewal.ask(),
      broken: (code, says) => tunnel.close(code, says),
      closed: () => tunnel.close('control.closed', 'the control stream ended'),
    })
    this.#links.set(link, control)
    tunnel.onOpen = (offer) => void this.#forwarder.serve(offer)
    if (!link.targetsTold) control.tell({ type: 'targets', targets: this.#watch.current })
    void tunnel.closed.then((reason) => {
      this.#links.delete(link)
      this.#log('info', 'tunnel.down', {
        gateway: link.gateway,
        code: reason.code,
        message: reason.message,
      })
    })
  }

  /** Resolves when there is something to do about `link`. */
  async #turnOf(link: Link): Promise<Turn> {
    const { promise, resolve } = Promise.withResolvers<Turn>()
    const stop = () => resolve({ type: 'stop' })
    this.#signal.addEventListener('abort', stop)
    if (this.#signal.aborted) stop()
    link.tunnel.onGoaway = ({ code, retryAfterMs }) => {
      this.#log('info', 'tunnel.goaway', { code, retry_after_ms: retryAfterMs })
      resolve({ type: 'goaway', retryAfterMs })
    }
    void link.tunnel.closed.then(() => resolve({ type: 'lost' }))
    let cancel = () => {}
    const look = () => {
      if (this.#maySwitch(link)) resolve({ type: 'switch' })
      else cancel = this.#monotonic.after(LOOK_MS, look)
    }
    look()
    try {
      return await promise
    } finally {
      cancel()
      this.#signal.removeEventListener('abort', stop)
    }
  }

  /**
   * Whether to dial with a newer pair now. The gateway lets go of the older tunnel, and of its streams,
   * when the newer one comes; so it waits for a quiet moment as long as the old certificate allows.
   */
  #maySwitch({ pair }: Link): boolean {
    if (this.#better === undefined) return false
    if (this.#monotonic.now() < this.#switchNotBefore) return false
    const lived = (this.#clock.now() - pair.notBefore) / (pair.notAfter - pair.notBefore)
    return this.#forwarder.serving === 0 || lived >= SWITCH_BY
  }

  /** The tunnel with the newest pair, or nothing when that did not come up: the old one stays. */
  async #switch(): Promise<Link | undefined> {
    try {
      return await this.#dial(this.#newest())
    } catch (error) {
      this.#switchNotBefore = this.#monotonic.now() + SWITCH_RETRY_MS
      if (!this.#signal.aborted) this.#report(error, SWITCH_RETRY_MS)
      return undefined
    }
  }

  /** Closes a tunnel that takes nothing new once only its control stream is left. */
  async #drain(tunnel: Tunnel): Promise<void> {
    let closed = false
    void tunnel.closed.then(() => (closed = true))
    while (!closed && !this.#signal.aborted && tunnel.stats().streams > 1) {
      await Promise.race([tunnel.closed, this.#pause(LOOK_MS)])
    }
    tunnel.close('agent.drained')
  }

  #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const cancel = this.#monotonic.after(ms, () => {
      this.#signal.removeEventListener('abort', stop)
      resolve()
    })
    const stop = () => {
      cancel()
      resolve()
    }
    if (this.#signal.aborted) stop()
    else this.#signal.addEventListener('abort', stop, { once: true })
    return promise
  }

  async #stop(): Promise<void> {
    this.#forwarder.drain()
    const tunnels = [...this.#links.keys()].map(({ tunnel }) => tunnel)
    for (const tunnel of tunnels)
      tunnel.close('agent.stopping', 'the agent on the device is stopping')
    const farewell = Promise.withResolvers<void>()
    const cancel = this.#monotonic.after(FAREWELL_MS, farewell.resolve)
    await Promise.race([Promise.all(tunnels.map((tunnel) => tunnel.closed)), farewell.promise])
    cancel()
    this.#log('info', 'agent.stopped', {})
  }
}

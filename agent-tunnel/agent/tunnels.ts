/**
 * Keeps a tunnel up: dials, takes what the gateway opens, dials again with jitter, follows GOAWAY without
 * a gap, moves to a renewed certificate at a quiet moment. What waits how long is reconnect.ts's.
 */
import { randomBytes } from 'node:crypto'
import { printAddress } from '#tunnel'
import type { Clock, Offer, Tunnel } from '#tunnel'
import type { DeviceClock } from './clock.ts'
import type { AgentConfig, Gateway } from './config.ts'
import { Control } from './control.ts'
import type { Told } from './control.ts'
import { openLink } from './dial.ts'
import type { Link } from './dial.ts'
import { mayFollow, spread } from './elsewhere.ts'
import { AgentError, agentCodes, messageOf } from './errors.ts'
import { gatewaysOf, isSame, pause, walk } from './gateways.ts'
import type { Identity, Pair } from './identity.ts'
import type { Log } from './log.ts'
import { patienceAfter } from './patience.ts'
import { after, fresh } from './reconnect.ts'
import type { Happening, Standing } from './reconnect.ts'
import { sameReport, type TargetsReport } from './reports.ts'
import type { StatusFile } from './status.ts'
import type { Anchors } from './trust.ts'
import type { UpdateReport } from './update/report.ts'
import type { Updater } from './update/updater.ts'
import { LogWatch } from './witness.ts'
import type { LogWatchOptions } from './witness.ts'

export interface TunnelsOptions {
  readonly config: AgentConfig
  readonly identity: Identity
  readonly anchors: Anchors
  readonly status: StatusFile
  readonly clock: DeviceClock
  readonly monotonic: Clock
  readonly random: () => number
  readonly log: Log
  readonly signal: AbortSignal
  /** What the gateway is told of the targets now. */
  readonly targets: () => TargetsReport
  readonly serve: (offer: Offer) => Promise<void>
  /** Streams being opened or open. */
  readonly serving: () => number
  /** The gateway asks for a renewal. */
  readonly renew: () => void
  /** Whether the owner is why the signal was aborted: then nothing is let go on. */
  readonly cutOff: () => boolean
  /** Looks who listens now; resolves when what differs has been told. */
  readonly look: () => Promise<void>
  /** Who takes updates, and says what became of them. */
  readonly updates: Pick<Updater, 'connected' | 'told'>
  /** Whom the gateway shows its log; absent: nobody, and every session is served. */
  readonly watch?: Omit<LogWatchOptions, 'conflict' | 'log' | 'monotonic'> | undefined
}

/** Why the loop looks up from a tunnel. */
type Turn =
  | Extract<Happening, { type: 'lost' }>
  | (Extract<Happening, { type: 'goaway' }> & { readonly alternatives: readonly string[] })
  | { readonly type: 'switch' }
  | { readonly type: 'stop' }

/** A renewed certificate is put to use when no stream is open, at the latest at this share of the old one's life. */
const SWITCH_BY = 0.9
const LOOK_MS = 1000
const SWITCH_RETRY_MS = 600_000
const FAREWELL_MS = 2000
/** Of several gateways, what each may take: one that says nothing must not keep the device from the next. */
const EACH_MS = 10_000
/** All alternatives together have so long, each a fair part of it but at least a quarter; then it is home again. */
const WALK_MS = 20_000
const LEAST_PARTS = 4

export class Tunnels {
  readonly #options: TunnelsOptions
  readonly #log: Log
  readonly #signal: AbortSignal
  readonly #monotonic: Clock
  readonly #instance = randomBytes(8).toString('hex')
  readonly #links = new Map<Link, Control>()
  #epoch = 0
  #standing: Standing = fresh
  /** A newer pair than the one the tunnel stands on. */
  #better: Pair | undefined
  #switchNotBefore = -Infinity
  #homeNotBefore = -Infinity
  /** Which certificates which gateway did not take since the last tunnel was up: by `refusalKey`. */
  readonly #turnedDown = new Set<string>()
  #retryIn = 0
  /** Why the last dialling had no key to prove itself with. */
  #keyless: AgentError | undefined
  #patienceMs: number

  constructor(options: TunnelsOptions) {
    this.#options = options
    this.#log = options.log
    this.#signal = options.signal
    this.#monotonic = options.monotonic
    this.#patienceMs = options.config.keepaliveMaxMs
  }

  /** Tells every gateway there is a tunnel to. */
  tell(message: Told): void {
    for (const control of this.#links.values()) control.tell(message)
  }

  /** There is a newer pair: the tunnel moves to it when nothing is open, or when it must. */
  use(pair: Pair): void {
    this.#better = pair
    this.#switchNotBefore = -Infinity
  }

  /**
   * Keeps a tunnel until the signal is aborted, then closes it; never rejects for what the network does. Rejects with
   * AgentError `identity.token` where the device's token no longer has its key and no stream is open.
   */
  async run(): Promise<void> {
    let link: Link | undefined
    while (!this.#signal.aborted) {
      link ??= await this.#dialUntilUp()
      if (link === undefined) break
      const turn = await this.#turnOf(link)
      if (turn.type === 'stop') break
      if (turn.type === 'switch') {
        const next = await this.#switch(link)
        if (next !== undefined) void this.#drain(link.tunnel)
        link = next ?? link
        continue
      }
      if (turn.type === 'goaway') void this.#drain(link.tunnel)
      link = turn.type === 'goaway' ? await this.#goElsewhere(turn.alternatives) : undefined
      if (link === undefined) await this.#pause(this.#happened(turn))
    }
    await this.#stop()
  }

  #newest(): Pair {
    const [pair] = this.#options.identity.pairs()
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
      this.#options.random,
    )
    this.#standing = standing
    return waitMs
  }

  /** The newest pair; after the gateway at `at` turned that one down, the one before, which is kept for just that. */
  #choose(at: Gateway): Pair {
    const pairs = this.#options.identity.pairs()
    const chosen = pairs.find((pair) => !this.#turnedDown.has(refusalKey(at, pair)))
    if (chosen === undefined)
      for (const pair of pairs) this.#turnedDown.delete(refusalKey(at, pair))
    return chosen ?? this.#newest()
  }

  /** A tunnel to the first of the owner's gateways that takes us; they are dialled in turn until one does. */
  async #dialUntilUp(): Promise<Link | undefined> {
    this.#options.status.update({ state: 'dialling', gateway: null, tls: null })
    const gateways = gatewaysOf(this.#options.config)
    const eachMs = gateways.length > 1 ? EACH_MS : Infinity
    while (!this.#signal.aborted) {
      const link = await walk(
        gateways,
        { pauseFrom: 1, eachMs, allMs: Infinity },
        {
          ...this.#walking,
          dial: async (at, signal) => {
            const pair = this.#choose(at)
            try {
              return await this.#dial(pair, at, signal)
            } catch (error) {
              if (tookOffence(error)) this.#turnedDown.add(refusalKey(at, pair))
              throw error
            }
          },
          failed: (error, _at, left) =>
            this.#report(error, left > 0 ? 0 : this.#happened({ type: 'failed' })),
        },
      )
      if (link !== undefined) return link
      // What OpenSSL knows of a token does not come back with it: only another process finds the key again.
      if (this.#keyless !== undefined && this.#options.serving() === 0) throw this.#keyless
      await this.#pause(this.#retryIn)
    }
    return undefined
  }

  /** A tunnel to one of the addresses that a leaving gateway named; nothing where none of them takes us. */
  async #goElsewhere(alternatives: readonly string[]): Promise<Link | undefined> {
    const named = spread(alternatives, this.#options.random)
    const allowed = named.filter((one) => mayFollow(one, this.#options.config))
    for (const { host, port } of named.filter((one) => !allowed.includes(one)))
      this.#log('warn', 'tunnel.elsewhere', { host, port, followed: false })
    const eachMs = WALK_MS / Math.min(allowed.length, LEAST_PARTS)
    return await walk(
      allowed,
      { pauseFrom: 0, eachMs, allMs: WALK_MS },
      {
        ...this.#walking,
        dial: async (at, signal) => await this.#dial(this.#choose(at), at, signal),
        failed: (error) => this.#report(error, 0),
      },
    )
  }

  get #walking() {
    const { random } = this.#options
    return { clock: this.#monotonic, random, signal: this.#signal }
  }

  #report(error: unknown, retryInMs: number): void {
    this.#retryIn = retryInMs
    const isKey = error instanceof AgentError && error.code === 'identity.token'
    this.#keyless = isKey ? error : undefined
    const told =
      error instanceof AgentError
        ? {
            code: error.code,
            message: error.message,
            next: error.next,
            server_code: error.serverCode,
          }
        : { code: 'tunnel.failed', message: messageOf(error) }
    this.#options.status.update({ last_error: { code: told.code, message: told.message } })
    this.#log('warn', 'tunnel.not_up', { ...told, retry_in_ms: Math.round(retryInMs) })
  }

  async #open(pair: Pair, at: Gateway, signal: AbortSignal): Promise<Link> {
    const { config, clock, anchors, targets, renew } = this.#options
    try {
      return await openLink({
        config,
        at,
        clock,
        monotonic: this.#monotonic,
        anchors,
        pair,
        instance: this.#instance,
        epoch: ++this.#epoch,
        patienceMs: this.#patienceMs,
        targets: targets(),
        signal,
      })
    } catch (error) {
      // The clock here may say otherwise: the gateway knows that it has ended. Of an older one nobody doubts that.
      const ended = error instanceof AgentError && error.serverCode === 'peer.expired'
      if (ended && serialOf(pair) === serialOf(this.#newest())) renew()
      throw error
    }
  }

  async #dial(pair: Pair, at = this.#options.config.gateway, signal = this.#signal): Promise<Link> {
    const { clock, status } = this.#options
    const link = await this.#open(pair, at, signal)
    this.#remember(pair)
    const newest = this.#newest()
    this.#better = newest.slot === pair.slot ? undefined : newest
    if (this.#turnedDown.has(refusalKey(at, newest))) {
      this.#switchNotBefore = this.#monotonic.now() + SWITCH_RETRY_MS
    }
    this.#turnedDown.clear()
    this.#take(link)
    this.#stayAway()
    this.#happened({ type: 'up' })
    const certificate = {
      serial: serialOf(pair),
      not_after: pair.leaf.validToDate.toISOString(),
    }
    const { gateway, tls } = link
    status.update({ state: 'connected', gateway, tls, certificate, last_error: null })
    this.#log('info', 'tunnel.up', { gateway, tls, certificate, clock_off_ms: clock.offMs })
    return link
  }

  #remember(pair: Pair): void {
    try {
      this.#options.identity.markConnected(pair.slot)
    } catch (error) {
      // A full disk is no reason to be offline; the slot is remembered at the next tunnel.
      this.#log('error', 'data.unwritable', { reason: messageOf(error) })
    }
  }

  /** Wires a new tunnel up. */
  #take(link: Link): void {
    const { tunnel } = link
    const control: Control = new Control(link.control, {
      renew: () => this.#options.renew(),
      shown: (log) => watch?.shown(log),
      update: (message) => this.#options.updates.told(message, link.at),
      look: (id) => void this.#options.look().then(() => control.tell({ type: 'looked', id })),
      broken: (code, says) => tunnel.close(code, says),
      closed: () => tunnel.close('control.closed', 'the control stream ended'),
    })
    this.#links.set(link, control)
    const watch = this.#watch(link, control)
    const { serve } = this.#options
    tunnel.onOpen = (offer) => void (watch === undefined ? serve(offer) : watch.admit(offer, serve))
    // What changed while it was dialled was told to nobody.
    const targets = this.#options.targets()
    if (link.told === undefined || !sameReport(link.told, targets))
      control.tell({ type: 'targets', ...targets })
    const tell = (report: UpdateReport) => control.tell(report)
    const { updates } = this.#options
    const ended = updates.connected(link.updates ? tell : undefined, link.hearsStarts)
    void tunnel.closed.then((reason) => {
      this.#links.delete(link)
      ended()
      watch?.[Symbol.dispose]()
      this.#patienceMs = patienceAfter(this.#patienceMs, { ...tunnel.stats(), code: reason.code })
      this.#log('info', 'tunnel.down', {
        gateway: link.gateway,
        code: reason.code,
        message: reason.message,
      })
    })
  }

  #watch({ logOrigin }: Link, control: Control): LogWatch | undefined {
    const { watch, status } = this.#options
    if (watch === undefined) return undefined
    const conflict: LogWatchOptions['conflict'] = (found) => status.update({ log_conflict: found })
    const options = { ...watch, conflict, log: this.#log, monotonic: this.#monotonic }
    return new LogWatch(options, logOrigin, (message) => control.tell(message))
  }

  /** Resolves when there is something to do about `link`. */
  async #turnOf(link: Link): Promise<Turn> {
    const { promise, resolve } = Promise.withResolvers<Turn>()
    const stop = () => resolve({ type: 'stop' })
    this.#signal.addEventListener('abort', stop)
    if (this.#signal.aborted) stop()
    void link.goaway.then(({ code, retryAfterMs, alternatives }) => {
      this.#log('info', 'tunnel.goaway', { code, retry_after_ms: retryAfterMs, alternatives })
      resolve({ type: 'goaway', retryAfterMs, alternatives })
    })
    void link.tunnel.closed.then(() => resolve({ type: 'lost' }))
    let cancel = () => {}
    const look = () => {
      if (this.#maySwitch(link) || this.#mayGoHome(link)) resolve({ type: 'switch' })
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
    const lived = (this.#options.clock.now() - pair.notBefore) / (pair.notAfter - pair.notBefore)
    return this.#options.serving() === 0 || lived >= SWITCH_BY
  }

  /** Whether to try the device's own gateway again, from another one: when nothing is open that it would end. */
  #mayGoHome({ at }: Link): boolean {
    if (isSame(at, this.#options.config.gateway) || this.#options.serving() > 0) return false
    return this.#monotonic.now() >= this.#homeNotBefore
  }

  /** The tunnel with the newest pair, at home where it is time for that, or nothing: the old one stays. */
  async #switch(link: Link): Promise<Link | undefined> {
    const home = this.#mayGoHome(link)
    try {
      return await this.#dial(this.#newest(), home ? this.#options.config.gateway : link.at)
    } catch (error) {
      const again = home ? this.#stayAway() : SWITCH_RETRY_MS
      if (!home) this.#switchNotBefore = this.#monotonic.now() + again
      if (!this.#signal.aborted) this.#report(error, again)
      return undefined
    }
  }

  /** How long the own gateway is left alone: as the config says, or up to twice that, drawn for each time. */
  #stayAway(): number {
    const ms = this.#options.config.homeAfterMs * (1 + this.#options.random())
    this.#homeNotBefore = this.#monotonic.now() + ms
    return ms
  }

  /** Closes a tunnel that takes nothing new once only its control stream is left. */
  async #drain(tunnel: Tunnel): Promise<void> {
    let closed = false
    void tunnel.closed.then(() => (closed = true))
    while (!closed && !this.#signal.aborted && tunnel.stats().streams > 1) {
      await Promise.race([tunnel.closed, this.#pause(LOOK_MS)])
    }
    // An agent that stops ends all its tunnels itself, and may first let their streams go on.
    if (!this.#signal.aborted) tunnel.close('agent.drained')
  }

  async #pause(ms: number): Promise<void> {
    await pause(ms, this.#monotonic, this.#signal)
  }

  /** Says GOAWAY, lets streams go on as long as the config allows, then closes. */
  async #stop(): Promise<void> {
    const tunnels = [...this.#links.keys()].map(({ tunnel }) => tunnel)
    const cutOff = this.#options.cutOff()
    const until = this.#monotonic.now() + (cutOff ? 0 : this.#options.config.drainMs)
    for (const tunnel of tunnels) {
      if (cutOff) tunnel.close('owner.island', 'the owner of the device has cut it off')
      else if (!tunnel.draining) tunnel.goaway('agent.stopping')
    }
    while (this.#options.serving() > 0 && this.#monotonic.now() < until) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#monotonic.after(LOOK_MS / 4, resolve)
      await promise
    }
    for (const tunnel of tunnels)
      tunnel.close('agent.stopping', 'the agent on the device is stopping')
    const farewell = Promise.withResolvers<void>()
    const cancel = this.#monotonic.after(FAREWELL_MS, farewell.resolve)
    await Promise.race([Promise.all(tunnels.map((tunnel) => tunnel.closed)), farewell.promise])
    cancel()
  }
}

function serialOf({ leaf }: Pair): string {
  return leaf.serialNumber.toLowerCase()
}

/** What one gateway says of a certificate is not what another one would. */
function refusalKey(at: Gateway, pair: Pair): string {
  return `${printAddress(at).toLowerCase()} ${serialOf(pair)}`
}

/** Whether a failure may be the certificate's: the gateway was reached, and it broke after that. */
function tookOffence(error: unknown): boolean {
  return error instanceof AgentError && agentCodes[error.code].hop === 'tunnel'
}

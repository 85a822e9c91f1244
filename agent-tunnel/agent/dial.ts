/** One tunnel, from the first packet to the gateway's welcome on the control stream. */
import { TunnelClosed, TunnelRefused } from '#tunnel'
import { rankOf } from '#update'
import type { Clock, Goaway, Tunnel, TunnelStream } from '#tunnel'
import type { DeviceClock } from './clock.ts'
import type { AgentConfig, Gateway } from './config.ts'
import { carry, dialGateway } from './connect.ts'
import type { Dialled } from './connect.ts'
import { AgentError, messageOf } from './errors.ts'
import type { Pair } from './identity.ts'
import { readRecord, writeRecord } from './json.ts'
import type { TargetsReport } from './reports.ts'
import { endOf } from './trust.ts'
import type { Anchors } from './trust.ts'
import { VERSION } from './version.ts'

/** This agent as it names itself; the number is what policy compares (major, minor, patch by thousands). */
const AGENT_VERSION = { version: VERSION, version_int: rankOf(VERSION) }

export interface LinkOptions {
  readonly config: AgentConfig
  /** Where to dial: the gateway of the config, or where that one sent us. */
  readonly at: Gateway
  readonly clock: DeviceClock
  readonly monotonic: Clock
  readonly anchors: Anchors
  readonly pair: Pair
  readonly instance: string
  readonly epoch: number
  /** How long this network bears silence, as far as is known. */
  readonly patienceMs: number
  readonly targets: TargetsReport
  readonly signal: AbortSignal
}

/** A tunnel the gateway has taken. */
export interface Link {
  readonly tunnel: Tunnel
  readonly control: TunnelStream
  readonly pair: Pair
  /** Where it was dialled. */
  readonly at: Gateway
  readonly tls: Dialled['tls']
  /** Resolves when the gateway says GOAWAY; listened for from the first frame on. */
  readonly goaway: Promise<Goaway>
  /** The gateway's own name. */
  readonly gateway: string
  /** The log that it shows, where it shows one. */
  readonly logOrigin: string | undefined
  /** It gives out updates, and hears what became of them. */
  readonly updates: boolean
  /** It says when it has taken down that an update starts. */
  readonly hearsStarts: boolean
  /** The targets that the greeting told; absent: they did not fit it, or there were none. */
  readonly told: TargetsReport | undefined
}

const CONTROL_TIMEOUT_MS = 15_000
const MAX_METADATA_BYTES = 4096

/**
 * Dials and is welcomed. Rejects with AgentError: those of `dialGateway`, `tunnel.refused` with the
 * gateway's code, `tunnel.failed`.
 */
export async function openLink(options: LinkOptions): Promise<Link> {
  const { clock, pair } = options
  const config = { ...options.config, gateway: options.at }
  const { socket, tls } = await dialGateway({
    config,
    use: 'tunnel',
    anchors: options.anchors,
    now: () => clock.now(),
    system: () => clock.system(),
    pair,
    signal: options.signal,
  })
  let tunnel: Tunnel | undefined
  try {
    const { instance, epoch, monotonic } = options
    tunnel = await carry(config, socket, {
      role: 'agent',
      instance,
      epoch,
      clock: monotonic,
      // Many vendors' keystrokes come by one tunnel, from a gateway that has counted each one's.
      limits: { keepalivePatienceMs: options.patienceMs, tinyFramesPerSecond: 1_000_000 },
    })
    const goaway = Promise.withResolvers<Goaway>()
    tunnel.onGoaway = goaway.resolve
    const greeting = greet(options, tls)
    const limit = AbortSignal.any([options.signal, AbortSignal.timeout(CONTROL_TIMEOUT_MS)])
    const control = await tunnel.open('control', greeting.bytes, { signal: limit })
    const welcome = readWelcome(control, options, endOf(socket))
    return {
      tunnel,
      control,
      pair,
      at: options.at,
      tls,
      goaway: goaway.promise,
      ...welcome,
      told: greeting.whole ? options.targets : undefined,
    }
  } catch (error) {
    tunnel?.close('agent.gave_up')
    socket.destroy()
    options.signal.throwIfAborted()
    throw error instanceof AgentError ? error : refusalOf(error)
  }
}

function greet(options: LinkOptions, tls: Dialled['tls']): { bytes: Uint8Array; whole: boolean } {
  const agent = { ...AGENT_VERSION, now_ms: Math.round(options.clock.now()) }
  const whole = writeRecord({ v: 1, agent, tls, looks: 1, ...options.targets })
  // No targets in a greeting may be those that did not fit; that there are none is told by itself.
  if (whole.length <= MAX_METADATA_BYTES)
    return { bytes: whole, whole: options.targets.targets.length > 0 }
  return { bytes: writeRecord({ v: 1, agent, tls, looks: 1, targets: [] }), whole: false }
}

function readWelcome(
  control: TunnelStream,
  { config, clock }: LinkOptions,
  until: number | undefined,
): Pick<Link, 'gateway' | 'logOrigin' | 'updates' | 'hearsStarts'> {
  const welcome = readRecord(control.answer)
  const gateway = welcome?.['gateway']
  const now = welcome?.['now_ms']
  if (welcome?.['v'] !== 1 || typeof gateway !== 'string' || typeof now !== 'number') {
    throw failed('its welcome is not of the protocol')
  }
  if (welcome['device'] !== config.device) throw failed('it took this device for another one')
  // The handshake is fresh and the peer proven: what it says is the time cannot be an old recording.
  clock.told(now, until)
  const log = welcome['log']
  const logOrigin = typeof log === 'string' ? log : undefined
  const hearsStarts = welcome['starts'] === 1
  return { gateway, logOrigin, updates: welcome['updates'] === 1, hearsStarts }
}

function refusalOf(error: unknown): AgentError {
  // What the gateway says in closing or refusing is its decision; what broke otherwise is a failure.
  const spoken =
    error instanceof TunnelRefused || (error instanceof TunnelClosed && error.fault === 'remote')
  if (
    !spoken ||
    !error.code.includes('.') ||
    /^(?:peer\.(?:lost|silent)|carrier|open)\b/.test(error.code)
  ) {
    return failed(messageOf(error), error)
  }
  return new AgentError(
    'tunnel.refused',
    `The gateway refused the tunnel of this device: ${error.message} (${error.code}).`,
    'Ask an operator why; the gateway has it in its log under this code.',
    { cause: error, serverCode: error.code },
  )
}

function failed(says: string, cause?: unknown): AgentError {
  return new AgentError(
    'tunnel.failed',
    `The tunnel could not be set up: ${says}.`,
    'The agent tries again by itself; `sallyport agent doctor` says where it breaks.',
    { cause },
  )
}

/** The gateways of a device: its own first, then the others in its owner's order; and a walk along such a list. */
import { printAddress } from '#tunnel'
import type { Clock } from '#tunnel'
import type { AgentConfig, Gateway } from './config.ts'
import { AgentError, agentCodes } from './errors.ts'

/** Each once, in the order in which they are dialled. */
export function gatewaysOf({
  gateway,
  others,
}: Pick<AgentConfig, 'gateway' | 'others'>): readonly Gateway[] {
  const all = [gateway, ...others]
  return all.filter((one, at) => all.findIndex((before) => isSame(before, one)) === at)
}

/** Whether two addresses are one. */
export function isSame(one: Gateway, other: Gateway): boolean {
  return one.host.toLowerCase() === other.host.toLowerCase() && one.port === other.port
}

export interface Walk<T> {
  readonly dial: (at: Gateway, signal: AbortSignal) => Promise<T>
  /** Told of each that did not take us, and how many are left. */
  readonly failed: (error: unknown, at: Gateway, left: number) => void
  readonly clock: Clock
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly signal: AbortSignal
}

export interface Pace {
  /** Before which of them there is a pause, drawn from zero to a second: devices sent on together do not arrive together. */
  readonly pauseFrom: 0 | 1
  /** What one of them may take; Infinity: as long as dialling takes. */
  readonly eachMs: number
  readonly allMs: number
}

const PAUSE_MS = 1000

/** What the first of `gateways` gives that takes us; undefined where none does, time is over, or the signal is aborted. */
export async function walk<T>(
  gateways: readonly Gateway[],
  pace: Pace,
  { dial, failed, clock, random, signal }: Walk<T>,
): Promise<T | undefined> {
  const until = clock.now() + pace.allMs
  for (const [nth, at] of gateways.entries()) {
    if (nth >= pace.pauseFrom) await pause(random() * PAUSE_MS, clock, signal)
    const left = until - clock.now()
    if (signal.aborted || left <= 0) return undefined
    try {
      return await within(Math.min(left, pace.eachMs), at, { dial, clock, signal })
    } catch (error) {
      if (signal.aborted) return undefined
      failed(error, at, gateways.length - 1 - nth)
    }
  }
  return undefined
}

/** Rejects as `dial`, and with `gateway.unreachable` after `ms`. */
async function within<T>(
  ms: number,
  at: Gateway,
  { dial, clock, signal }: Pick<Walk<T>, 'dial' | 'clock' | 'signal'>,
): Promise<T> {
  if (!Number.isFinite(ms)) return await dial(at, signal)
  const late = new AbortController()
  const cancel = clock.after(ms, () => late.abort())
  try {
    return await dial(at, AbortSignal.any([signal, late.signal]))
  } catch (error) {
    if (!late.signal.aborted || signal.aborted) throw error
    throw new AgentError(
      'gateway.unreachable',
      `The gateway at ${printAddress(at)} did not take the tunnel in time.`,
      'The agent goes on by itself, to the next address it knows or was told.',
      { cause: error },
    )
  } finally {
    cancel()
  }
}

/** Resolves after `ms`, or when the signal is aborted. */
export async function pause(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  const { promise, resolve } = Promise.withResolvers<void>()
  const cancel = clock.after(ms, resolve)
  const stop = () => resolve()
  signal.addEventListener('abort', stop, { once: true })
  await promise
  cancel()
  // The signal is the agent's own and lives as long: what stayed on it would add up, a pause at a time.
  signal.removeEventListener('abort', stop)
}

const BEFORE_AN_ANSWER = new Set(['dns', 'tcp', 'proxy', 'tls', 'certificate', 'clock'])

/** Whether a failure is that nobody was reached: what a gateway has decided, no other one is asked. */
function wasNotReached(error: unknown): boolean {
  if (!(error instanceof AgentError)) return false
  if (error.code === 'enrol.failed') return error.serverCode === undefined
  return BEFORE_AN_ANSWER.has(agentCodes[error.code].hop)
}

/** Does `work` at the gateways in turn, until one is reached. Rejects as the first of them where none is. */
export async function atFirstReached<T>(
  config: AgentConfig,
  work: (config: AgentConfig) => Promise<T>,
): Promise<T> {
  let first: { readonly error: unknown } | undefined
  for (const gateway of gatewaysOf(config))
    try {
      return await work({ ...config, gateway })
    } catch (error) {
      if (!wasNotReached(error)) throw error
      first ??= { error }
    }
  throw first?.error
}

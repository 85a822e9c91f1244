/**
 * What becomes of an OPEN: config target, what was signed, consent, connection, observation, first use, ACCEPT with what was seen, then
 * nothing until the gateway says proceed; then bytes or datagrams, watched by the lease and by looking
 * again at who owns the other end. The list in `serve` is the order; a step that fails says so by its code.
 */
import type { Clock, CloseReason, Offer, StreamKind, TunnelStream } from '#tunnel'
import { answerOf, askOf, Refused } from './ask.ts'
import type { Ask, ForwardCode } from './ask.ts'
import type { Consent, ConsentCode, Consents } from './consent.ts'
import { messageOf } from './errors.ts'
import { readRecord } from './json.ts'
import { openLease } from './lease.ts'
import type { Kind, Line, LineRoom } from './line.ts'
import type { Log } from './log.ts'
import { Pressure } from './pressure.ts'
import type { Observed } from './scope/observed.ts'
import type { ProcessScope } from './scope/owner.ts'
import type { TcpMemory } from './scope/procfs.ts'
import { placeOf } from './target.ts'
import type { Dialled, Target } from './target.ts'
import type { Signed, TwoKeys } from './two-keys.ts'
import { spawned } from './spawn/line.ts'
import { tcp } from './tcp.ts'
import { udp } from './udp.ts'
import { OwnerWatch } from './watch.ts'

export interface ForwardOptions {
  readonly targets: ReadonlyMap<string, Target>
  readonly scope: ProcessScope
  readonly clock: Clock
  readonly acceptDeadlineMs: number
  /** Who asks the owner, for targets that want it. */
  readonly consents: Consents
  readonly log: Log
  /** Tells the gateway that another process owns the session's connection now. */
  readonly ownerChanged: (session: string, observed: Observed) => void
  /** The kernel's memory for TCP; tests give their own. */
  readonly tcpMemory?: () => TcpMemory | undefined
  /** What the owner pinned; without it the gateway decides alone. */
  readonly twoKeys?: Pick<TwoKeys, 'admit'>
}

const DIALLED: Readonly<Record<Dialled['kind'], Kind>> = { tcp, lan: tcp, udp, lan_udp: udp }

function kindOf(target: Target): Pick<Kind, 'stream'> {
  return target.kind === 'spawn' ? spawned : DIALLED[target.kind]
}

function openLine(target: Target, ask: Ask, room: LineRoom, cancelled: AbortSignal): Promise<Line> {
  if (target.kind === 'spawn') return spawned.open(target, ask, room, cancelled)
  return DIALLED[target.kind].open(target, ask, room, cancelled)
}

const STREAMS: readonly StreamKind[] = ['tcp', 'udp', 'spawn']

/** The gateway decides in milliseconds; a paused target is not kept for one that does not. */
const PROCEED_TIMEOUT_MS = 30_000
const MAX_SESSIONS = 1024

const OWNER: Readonly<Record<ConsentCode, string>> = {
  'owner.asked': 'the people at the device have been asked and have not answered yet',
  'owner.denied': 'the people at the device said no',
  'owner.silent': 'the people at the device were asked and did not answer',
  'owner.busy': 'the people at the device have too many questions before them',
  'owner.unasked':
    'the people at the device cannot be asked: the question could not be written down',
}

/** Uses what was signed from now on; gives how long it may last. */
function usedNow(signed: Signed | undefined): number {
  const used = signed?.use()
  if (used === undefined) return Infinity
  if (!used.ok) throw new Refused(used.code, used.detail)
  return used.remainingMs
}

/** Serves the streams a gateway opens. One for all tunnels of an agent. */
export class Forwarder {
  readonly #options: ForwardOptions
  readonly #room: LineRoom
  #serving = 0
  #draining = false

  constructor(options: ForwardOptions) {
    this.#options = options
    this.#room = { ...options, pressure: new Pressure(options.clock, options.tcpMemory) }
  }

  /** Streams being opened or open. */
  get serving(): number {
    return this.#serving
  }

  /** From now on every OPEN is refused with `agent.draining`. */
  drain(): void {
    this.#draining = true
  }

  /** Answers `offer` and serves the stream to its end; nothing for one that was taken back before. Never rejects. */
  async serve(offer: Offer): Promise<void> {
    if (offer.cancelled) return
    const { clock, log } = this.#options
    const cancelled = new AbortController()
    offer.onCancel = () => cancelled.abort()
    let line: Line | undefined
    this.#serving++
    try {
      const ask = this.#read(offer)
      const leaseEnds = clock.now() + ask.remainingMs
      const target = this.#target(ask)
      if (ask.asksOwner) return await this.#askOwner(offer, ask, target, cancelled.signal)
      const signed = this.#signed(ask)
      const consent = await this.#consent(ask, target, cancelled.signal)
      line = await openLine(target, ask, this.#room, cancelled.signal)
      cancelled.signal.throwIfAborted()
      const { observed, sighting, says } = line
      const answer = answerOf(observed, { ...says, consent })
      // Nothing may fail between the two: what is not opened is no use of the grant.
      const signedMs = usedNow(signed)
      const stream = offer.accept(answer)
      const names = { session: ask.session, process: ask.process }
      log('info', 'stream.accepted', { ...names, observed, unreadable: sighting?.unreadable })
      const closed = await this.#carry(
        stream,
        line,
        ask,
        Math.min(signedMs, leaseEnds - clock.now()),
      )
      log('info', 'stream.closed', { ...names, code: closed.code })
    } catch (error) {
      line?.destroy()
      if (!cancelled.signal.aborted) this.#refuse(offer, error)
    } finally {
      this.#serving--
    }
  }

  #refuse(offer: Offer, error: unknown): void {
    const code = error instanceof Refused ? error.code : 'target.unobserved'
    this.#options.log('warn', 'stream.refused', { code, reason: messageOf(error) })
    offer.refuse(code, messageOf(error))
  }

  #read(offer: Offer): Ask {
    if (this.#draining) throw new Refused('agent.draining', 'the agent is stopping')
    if (this.#serving > MAX_SESSIONS)
      throw new Refused('agent.full', `${MAX_SESSIONS} streams are open`)
    if (!STREAMS.includes(offer.kind))
      throw new Refused('open.kind', `this agent opens no ${offer.kind} streams`)
    return askOf(offer.kind, offer.metadata)
  }

  /** Before anybody is asked or anything is dialled: what the pinned approvers signed, where there are any. */
  #signed({ process, grant, modbus }: Ask): Signed | undefined {
    const admitted = this.#options.twoKeys?.admit({
      process,
      grant,
      otLevel: modbus?.level,
      otWindows: modbus?.windows,
    })
    if (admitted?.ok === false) throw new Refused(admitted.code, admitted.detail)
    return admitted
  }

  #target({ kind, process }: Ask): Target {
    const target = this.#options.targets.get(process)
    if (target === undefined)
      throw new Refused('target.unknown', `no target is called ${process} here`)
    const { stream } = kindOf(target)
    if (stream !== kind)
      throw new Refused('open.kind', `${process} is reached by ${stream} streams, not by ${kind}`)
    return target
  }

  /** Before there is a session: the answer is all that is told, and the stream ends with it. */
  async #askOwner(offer: Offer, ask: Ask, target: Target, cancelled: AbortSignal): Promise<void> {
    const consent = await this.#consented(ask, target, cancelled)
    const stream = offer.accept(answerOf(null, { consent }))
    const { promise, resolve } = Promise.withResolvers<CloseReason>()
    const late = this.#options.clock.after(PROCEED_TIMEOUT_MS, () =>
      stream.reset('proceed.late', 'the answer of the owner was not taken in time'),
    )
    stream.onClose = resolve
    await promise
    late()
  }

  /** What the owner says where they want to be asked, before the target hears of anything. */
  async #consent(ask: Ask, target: Target, cancelled: AbortSignal): Promise<Consent | undefined> {
    return target.consent ? await this.#consented(ask, target, cancelled) : undefined
  }

  async #consented(
    { session, process, who, remainingMs }: Ask,
    target: Target,
    cancelled: AbortSignal,
  ): Promise<Consent> {
    const question = { session, process, target: placeOf(target), who }
    const answer = await this.#options.consents.ask(question, remainingMs, cancelled)
    cancelled.throwIfAborted()
    if ('code' in answer) throw new Refused(answer.code, OWNER[answer.code])
    return answer.consent
  }

  /**
   * How long the stream may last from now, as the gateway says; where approvers are pinned, no longer than what they
   * signed, which it shows again. Undefined where that is nothing: the lease stays as it was.
   */
  #renewed(ask: Ask, told: Readonly<Record<string, unknown>>): number | undefined {
    const { remaining_ms: remainingMs, grant } = told
    if (!Number.isSafeInteger(remainingMs) || Number(remainingMs) <= 0) return undefined
    try {
      const signedMs = usedNow(this.#signed({ ...ask, grant }))
      this.#options.log('info', 'lease.renewed', { session: ask.session, process: ask.process })
      return Math.min(signedMs, Number(remainingMs))
    } catch (error) {
      const code = error instanceof Refused ? error.code : 'approvers.invalid'
      const facts = { session: ask.session, code, reason: messageOf(error) }
      this.#options.log('warn', 'lease.refused', facts)
      return undefined
    }
  }

  /** From ACCEPT to the end of the stream. */
  #carry(stream: TunnelStream, line: Line, ask: Ask, remainingMs: number): Promise<CloseReason> {
    const { clock } = this.#options
    const { promise, resolve } = Promise.withResolvers<CloseReason>()
    const cleanup = new DisposableStack()
    const end = (code: ForwardCode, message: string) => {
      stream.reset(code, message)
      line.destroy()
    }
    const lease = openLease(remainingMs, clock, () =>
      end('lease.spent', 'the time of the session is over'),
    )
    cleanup.defer(() => lease.end())
    /** Whether the signal was about the lease; what a line does with others is its own. */
    const renews = (payload: Uint8Array): boolean => {
      const told = readRecord(payload)
      if (told?.['t'] !== 'lease') return false
      const ms = this.#renewed(ask, told)
      if (ms !== undefined) lease.renew(ms)
      return true
    }
    const late = clock.after(PROCEED_TIMEOUT_MS, () =>
      end('proceed.late', 'the gateway did not decide in time'),
    )
    cleanup.defer(late)
    let watch: OwnerWatch | undefined
    const over = (reason: CloseReason) => {
      cleanup.dispose()
      watch?.[Symbol.dispose]()
      resolve(reason)
    }
    stream.onClose = (reason) => {
      line.destroy()
      over(reason)
    }
    // Both: the gateway has decided, and every process has been looked at.
    let proceeded = false
    let complete = line.sighting?.complete ?? true
    const flow = () => {
      if (!proceeded || !complete) return
      late()
      line.flow({ stream, end, over, lookNow: () => watch?.lookNow() })
      const heard = stream.onSignal
      if (heard !== hear) stream.onSignal = (payload) => void (renews(payload) || heard?.(payload))
    }
    const hear = (payload: Uint8Array) => {
      if (renews(payload)) return
      if (proceeded || readRecord(payload)?.['t'] !== 'proceed') return
      proceeded = true
      flow()
    }
    stream.onSignal = hear
    if (line.sighting !== undefined)
      watch = new OwnerWatch(line.sighting, {
        ...this.#options,
        session: ask.session,
        end,
        resighted: (sighting) => line.resighted?.(sighting),
        completed: () => {
          complete = true
          flow()
        },
      })
    return promise
  }
}

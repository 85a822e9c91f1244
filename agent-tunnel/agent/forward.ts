/**
 * What becomes of an OPEN: config target, connection, observation, ACCEPT with what was seen, then
 * nothing until the gateway says proceed; then bytes, watched by the lease and by looking again at who
 * owns the other end. The list in `serve` is the order; a step that fails says so by its code.
 */
import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { ApproversFault } from '#approval'
import type { ModbusOptions } from '#ot'
import type { Clock, CloseReason, Offer, TunnelStream } from '#tunnel'
import type { Target } from './config.ts'
import { isId } from './config.ts'
import type { Consent, ConsentCode, Consents } from './consent.ts'
import { messageOf } from './errors.ts'
import { readRecord, writeRecord } from './json.ts'
import { startLease } from './lease.ts'
import type { Log } from './log.ts'
import { Pressure } from './pressure.ts'
import type { TcpMemory } from './scope/procfs.ts'
import { canonicalAddress, endpoint, printEndpoint } from './scope/address.ts'
import type { FourTuple } from './scope/address.ts'
import { sameFacts, unseen } from './scope/observed.ts'
import type { Observed } from './scope/observed.ts'
import type { ProcessScope, Sighting, Unobserved } from './scope/owner.ts'
import type { TwoKeys } from './two-keys.ts'
import { ModbusLine, modbusRules } from './modbus.ts'
import type { ModbusEnds } from './modbus.ts'
import { splice } from './splice.ts'

/** Codes the agent refuses or ends a stream with; docs/agent.md says what each means. */
export type ForwardCode =
  | 'open.kind'
  | 'open.metadata'
  | 'target.unknown'
  | 'target.unreachable'
  | 'target.unobserved'
  | 'agent.draining'
  | 'agent.full'
  | 'agent.memory'
  | 'lease.spent'
  | 'proceed.late'
  | 'process.changed'
  | 'approvers.invalid'
  | ApproversFault
  | ConsentCode

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

/** What OPEN asked for. */
interface Ask {
  readonly session: string
  readonly process: string
  readonly remainingMs: number
  /** Who is behind it, as the gateway says. */
  readonly who: string | null
  /** What a Modbus session is held to; undefined where it is none. */
  readonly modbus: ModbusOptions | undefined
  /** The signed grant as it came, for a device that asks for one. */
  readonly grant: unknown
}

class Refused extends Error {
  readonly code: ForwardCode
  constructor(code: ForwardCode, message: string) {
    super(message)
    this.code = code
  }
}

const CONNECT_TIMEOUT_MS = 5000
/** The gateway decides in milliseconds; a paused target is not kept for one that does not. */
const PROCEED_TIMEOUT_MS = 30_000
const RECHECK_MS = 1000
/** A look at the processes takes milliseconds; one that has not come back by then never will. */
const LOOK_TIMEOUT_MS = 10_000
/** Every so many looks at the known owners comes one at all processes: somebody may have joined. */
const FULL_LOOK_EVERY = 15
const MAX_SESSIONS = 1024
/** docs/protocol.md: metadata in OPEN and ACCEPT. */
const MAX_METADATA_BYTES = 4096
const SESSION_ID = /^s_[0-9a-hjkmnp-tv-z]{26}$/

const UNOBSERVED: Readonly<Record<Unobserved, string>> = {
  not_accepted: 'no process accepted the connection in time',
  elsewhere: 'no process of this machine accepted the connection; is it a "lan" target?',
  unsettled: 'the processes that own the connection kept changing, or are too many',
}

const OWNER: Readonly<Record<ConsentCode, string>> = {
  'owner.asked': 'the people at the device have been asked and have not answered yet',
  'owner.denied': 'the people at the device said no',
  'owner.silent': 'the people at the device were asked and did not answer',
  'owner.busy': 'the people at the device have too many questions before them',
}

/** Serves the streams a gateway opens. One for all tunnels of an agent. */
export class Forwarder {
  readonly #options: ForwardOptions
  readonly #pressure: Pressure
  #serving = 0
  #draining = false

  constructor(options: ForwardOptions) {
    this.#options = options
    this.#pressure = new Pressure(options.clock, options.tcpMemory)
  }

  /** Streams being opened or open. */
  get serving(): number {
    return this.#serving
  }

  /** From now on every OPEN is refused with `agent.draining`. */
  drain(): void {
    this.#draining = true
  }

  /** Answers `offer` and serves the stream to its end. Never rejects. */
  async serve(offer: Offer): Promise<void> {
    const { clock, log } = this.#options
    const cancelled = new AbortController()
    offer.onCancel = () => cancelled.abort()
    let target: Socket | undefined
    this.#serving++
    try {
      const ask = this.#read(offer)
      const leaseEnds = clock.now() + this.#admitted(ask)
      const kind = this.#target(ask.process)
      const consent = await this.#consent(ask, kind, cancelled.signal)
      target = await this.#connect(kind, cancelled.signal)
      const sighting = await this.#observe(kind, target, cancelled.signal)
      cancelled.signal.throwIfAborted()
      const observed = sighting?.observed ?? null
      const stream = offer.accept(answerOf(observed, consent))
      const names = { session: ask.session, process: ask.process }
      log('info', 'stream.accepted', { ...names, observed, unreadable: sighting?.unreadable })
      const closed = await this.#carry(stream, target, ask, leaseEnds - clock.now(), sighting)
      log('info', 'stream.closed', { ...names, code: closed.code })
    } catch (error) {
      target?.destroy()
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
    if (offer.kind !== 'tcp')
      throw new Refused('open.kind', `this agent opens no ${offer.kind} streams`)
    return askOf(offer.metadata)
  }

  /** Before anything is dialled: what the pinned approvers signed, where there are any. Gives how long it may last. */
  #admitted({ process, grant, modbus, remainingMs }: Ask): number {
    const { twoKeys } = this.#options
    if (twoKeys === undefined) return remainingMs
    const admitted = twoKeys.admit({ process, grant, otLevel: modbus?.level })
    if (!admitted.ok) throw new Refused(admitted.code, admitted.detail)
    return Math.min(remainingMs, admitted.remainingMs)
  }

  #target(process: string): Target {
    const target = this.#options.targets.get(process)
    if (target === undefined)
      throw new Refused('target.unknown', `no target is called ${process} here`)
    const { address } = target.endpoint
    if (target.kind === 'lan' && isOwnAddress(address)) {
      throw new Refused(
        'target.unreachable',
        `the lan target ${process} is this machine itself; write "tcp"`,
      )
    }
    return target
  }

  /** What the owner says, before the target hears of anything. */
  async #consent(
    { session, process, who, remainingMs }: Ask,
    { consent, endpoint: end }: Target,
    cancelled: AbortSignal,
  ): Promise<Consent | undefined> {
    if (!consent) return undefined
    const question = { session, process, target: printEndpoint(end), who }
    const answer = await this.#options.consents.ask(question, remainingMs, cancelled)
    cancelled.throwIfAborted()
    if ('code' in answer) throw new Refused(answer.code, OWNER[answer.code])
    return answer.consent
  }

  async #connect({ endpoint: end }: Target, cancelled: AbortSignal): Promise<Socket> {
    const socket = connect({
      host: end.address,
      port: end.port,
      allowHalfOpen: true,
      noDelay: true,
    })
    socket.pause()
    socket.on('error', () => {})
    try {
      const signal = AbortSignal.any([cancelled, AbortSignal.timeout(CONNECT_TIMEOUT_MS)])
      await once(socket, 'connect', { signal })
      return socket
    } catch (error) {
      socket.destroy()
      const why = messageOf(error)
      throw new Refused(
        'target.unreachable',
        `${printEndpoint(end)} does not take connections: ${why}`,
      )
    }
  }

  async #observe(
    target: Target,
    socket: Socket,
    cancelled: AbortSignal,
  ): Promise<Sighting | undefined> {
    if (target.kind === 'lan') return undefined
    const { scope, acceptDeadlineMs, clock } = this.#options
    const dialled = tupleOf(socket)
    if (dialled === undefined)
      throw new Refused('target.unreachable', 'the target closed the connection')
    // A look may hang in the kernel (a program on a file system that no longer answers).
    const { promise: hung, reject } = Promise.withResolvers<never>()
    const cancel = clock.after(acceptDeadlineMs + LOOK_TIMEOUT_MS, () =>
      reject(new Refused('target.unobserved', 'the processes of this device cannot be looked at')),
    )
    try {
      const looking = scope.observeAccepted(dialled, acceptDeadlineMs, cancelled)
      const seen = await Promise.race([looking, hung])
      if (seen.ok) return seen.sighting
      throw new Refused('target.unobserved', UNOBSERVED[seen.why])
    } finally {
      cancel()
    }
  }

  /** From ACCEPT to the end of the stream. */
  #carry(
    stream: TunnelStream,
    target: Socket,
    { session, modbus }: Ask,
    remainingMs: number,
    sighting: Sighting | undefined,
  ): Promise<CloseReason> {
    const { clock, log } = this.#options
    const { promise, resolve } = Promise.withResolvers<CloseReason>()
    const cancels = [
      startLease(remainingMs, clock, () => end('lease.spent', 'the time of the session is over')),
    ]
    const late = clock.after(PROCEED_TIMEOUT_MS, () =>
      end('proceed.late', 'the gateway did not decide in time'),
    )
    const end = (code: ForwardCode, message: string) => {
      stream.reset(code, message)
      target.destroy()
    }
    const over = (reason: CloseReason) => {
      late()
      for (const cancel of cancels) cancel()
      resolve(reason)
    }
    stream.onClose = (reason) => {
      target.destroy()
      over(reason)
    }
    const judge =
      modbus && ((ends: ModbusEnds) => new ModbusLine(modbus, ends, clock, log, session))
    // Both: the gateway has decided, and every process has been looked at.
    let proceeded = false
    let complete = sighting?.complete ?? true
    const flow = () => {
      if (!proceeded || !complete) return
      late()
      splice(stream, target, clock, over, judge)
      const starved = (message: string) => end('agent.memory', message)
      cancels.push(this.#pressure.watch({ stream, target, end: starved }))
    }
    stream.onSignal = (payload) => {
      if (proceeded || readRecord(payload)?.['t'] !== 'proceed') return
      proceeded = true
      flow()
    }
    const completed = () => {
      complete = true
      flow()
    }
    if (sighting !== undefined) cancels.push(this.#watch(session, sighting, end, completed))
    return promise
  }

  /**
   * Looks again at the owner until taken back; another owner is told, and ends the session unless alike.
   * `completed` is called once all processes have been looked at, if `first` had not.
   */
  #watch(
    session: string,
    first: Sighting,
    end: (code: ForwardCode, message: string) => void,
    completed: () => void,
  ): () => void {
    const { scope, clock, log } = this.#options
    let sighting = first
    let incomplete = !first.complete
    let stopped = false
    let cancel = () => {}
    const look = async (full: boolean): Promise<void> => {
      const hung = () => end('process.changed', 'the owner of the connection can no longer be seen')
      const cancelHung = clock.after(LOOK_TIMEOUT_MS, hung)
      const again = await scope.recheck(sighting, full).finally(cancelHung)
      if (stopped) return
      if (again.state === 'changed') {
        const observed = again.sighting?.observed ?? unseen('accepted')
        const alike = again.sighting !== undefined && sameFacts(sighting.observed, observed)
        log('warn', 'owner.changed', { session, alike, before: sighting.observed, observed })
        this.#options.ownerChanged(session, observed)
        if (!alike) return end('process.changed', 'another program owns the connection now')
        sighting = again.sighting
      }
      if (incomplete && again.state === 'closed')
        return end('process.changed', 'the target closed before all processes were looked at')
      if (incomplete) completed()
      incomplete = false
      schedule()
    }
    const start = (full: boolean): void => {
      look(full).catch((error: unknown) => {
        log('error', 'owner.unchecked', { session, reason: messageOf(error) })
        end('process.changed', 'the owner of the connection can no longer be seen')
      })
    }
    // On the clock's full seconds, all connections at once: they share their looks.
    const schedule = (): void => {
      const second = Math.round(clock.now() / RECHECK_MS) + 1
      cancel = clock.after(second * RECHECK_MS - clock.now(), () =>
        start(second % FULL_LOOK_EVERY === 0),
      )
    }
    if (incomplete) start(true)
    else schedule()
    return () => {
      stopped = true
      cancel()
    }
  }
}

/** Reads what OPEN asks for. What else it holds is the gateway's to enforce, or a later version's. */
function askOf(metadata: Uint8Array): Ask {
  const { v, session, process, remaining_ms: remainingMs, ...more } = readRecord(metadata) ?? {}
  if (v !== 1 || typeof session !== 'string' || !SESSION_ID.test(session)) {
    throw new Refused('open.metadata', 'the request names no session')
  }
  if (!isId(process)) throw new Refused('open.metadata', 'the request names no process')
  if (typeof remainingMs !== 'number' || !Number.isSafeInteger(remainingMs)) {
    throw new Refused('open.metadata', 'the request does not say how long the session may last')
  }
  if (remainingMs <= 0) throw new Refused('lease.spent', 'the time of the session is over')
  const who = whoOf(more['who'])
  return { session, process, remainingMs, who, modbus: modbusOf(more), grant: more['grant'] }
}

const MAX_WHO = 320

/** For people to read on a terminal: nothing that would move its cursor. */
function whoOf(value: unknown): string | null {
  return typeof value === 'string' ? value.replaceAll(/[^\P{C} ]/gu, '?').slice(0, MAX_WHO) : null
}

/** A session that is said to be Modbus without rules we understand is not opened with none. */
function modbusOf({ protocol, obligations }: Record<string, unknown>): ModbusOptions | undefined {
  if (protocol === undefined || protocol === 'tcp') return undefined
  const rules = protocol === 'modbus' ? modbusRules(obligations) : undefined
  if (rules === undefined)
    throw new Refused('open.metadata', 'the request is for a protocol this agent cannot judge')
  return rules
}

/** The answer to OPEN, whole or not at all: a list of owners cut to fit would hide one. */
function answerOf(observed: Observed | null, consent: Consent | undefined): Uint8Array {
  const answer = writeRecord({ v: 1, observed, ...(consent === undefined ? {} : { consent }) })
  if (answer.length <= MAX_METADATA_BYTES) return answer
  throw new Refused('target.unobserved', UNOBSERVED.unsettled)
}

function tupleOf(socket: Socket): FourTuple | undefined {
  const local = endpoint(socket.localAddress ?? '', socket.localPort ?? 0)
  const remote = endpoint(socket.remoteAddress ?? '', socket.remotePort ?? 0)
  return local === undefined || remote === undefined ? undefined : { local, remote }
}

function isOwnAddress(address: string): boolean {
  return Object.values(networkInterfaces()).some((list) =>
    list?.some((own) => canonicalAddress(own.address) === address),
  )
}

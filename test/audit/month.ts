/** A stretch of a plant's log, written by the real writer at times of the test's choosing. */
import { render } from '../../audit/format/render.ts'
import { activeRoot, type ActiveLine } from '../../audit/heartbeat.ts'
import type { EventInput } from '#audit'
import { closingEvent, openingEvent } from '../../audit/epoch.ts'
import { beginning, ending, writerOf, type EpochKeys } from './epoch-fixture.ts'
import { origin, writer, type TextWriter } from './fixture.ts'

export const begin = Date.parse('2026-03-10T08:00:00Z')
export const minute = 60_000

const vera = { uid: 'https://idp.test|vera', name: 'vera@vendor.test', party: 'vendor' } as const
export const olga = {
  uid: 'https://idp.test|olga',
  name: 'olga@plant.test',
  party: 'staff',
} as const
/** A person of the test's plant. */
type Person = NonNullable<EventInput['actor']>

export class Month {
  readonly one: TextWriter
  time = begin
  #count = 0
  #previous: number | null = null
  /** Every so many heartbeats a head is signed. */
  every = 1
  #beats = 0
  readonly active = new Map<string, ActiveLine>()
  readonly #directory: string
  readonly #keys: EpochKeys | undefined
  readonly #source: { readonly origin: string; readonly node: string; readonly version: string }

  /** A new segment begins after `segmentBytes`. `keys`: of which epoch it is, where it is one of several. */
  constructor(directory: string, segmentBytes?: number, keys?: EpochKeys) {
    this.#directory = directory
    this.#keys = keys
    this.#source = { origin: keys?.origin ?? origin, node: 'n1', version: '0.1.0' }
    this.one =
      keys === undefined
        ? writer(directory, undefined, segmentBytes)
        : writerOf(directory, keys, segmentBytes)
    this.one.open()
  }

  /** Ends this epoch, and begins the next under its keys in a directory of its own, as a rotation does. */
  rotate(directory: string, next: EpochKeys): Month {
    if (this.#keys === undefined) throw new Error('it is of no epoch')
    this.stop()
    this.write(closingEvent(ending(next)))
    this.one.sign(this.time)
    this.one.close()
    const after = new Month(directory, undefined, next)
    after.time = this.time + 1_000
    after.every = this.every
    after.write(openingEvent(beginning(this.#keys, this.#directory)))
    after.open()
    return after
  }

  /** Writes an event at the current time; gives its index. */
  write(event: EventInput): number {
    const random = new Uint8Array(10)
    new DataView(random.buffer).setUint32(4, ++this.#count)
    const { first } = this.one.write([render(event, this.#source, this.time, random).head])
    return first
  }

  /** n minutes go by, each with its heartbeat and a signed head. */
  pass(minutes: number): void {
    for (let i = 0; i < minutes; i++) {
      this.time += minute
      this.beat()
    }
  }

  /** `elapsed`: ms since the heartbeat before by a clock that nobody sets; older logs do not say. */
  beat(lines: readonly ActiveLine[] = [...this.active.values()], elapsed?: number): void {
    this.#previous = this.write({
      code: 'log.heartbeat',
      message: `${lines.length} active sessions`,
      status: 'success',
      data: {
        active_root: activeRoot(lines),
        active: lines.length,
        ...(elapsed === undefined ? {} : { elapsed_ms: elapsed }),
        ...(this.#previous === null ? {} : { previous: this.#previous }),
      },
    })
    if (++this.#beats % this.every === 0) this.one.sign(this.time)
  }

  grant(
    id: string,
    needed = 1,
    approver: typeof olga | typeof vera = olga,
    {
      seconds: maxSeconds = 3_600,
      uses,
      approved = needed > 0,
    }: { seconds?: number; uses?: number; approved?: boolean } = {},
  ): void {
    const seconds = Math.floor(this.time / 1000)
    const facts = { status: 'success' as const, device: 'press-07', grant: id }
    this.write({
      ...facts,
      code: 'grant.request',
      message: 'grant for press-07 requested',
      actor: vera,
      process: 'plc',
      ticket: 'CHG-1142',
      data: {
        devices: ['press-07'],
        processes: ['plc'],
        not_before: seconds,
        not_after: seconds + 8 * 3_600,
        max_seconds: maxSeconds,
        ...(uses === undefined ? {} : { max_uses: uses }),
        reason_given: 'replace the <worn> valve block & test',
        approvals_needed: needed,
      },
    })
    this.time += 1_000
    if (approved)
      this.write({
        ...facts,
        code: 'grant.approve',
        message: 'grant for press-07 approved',
        actor: approver,
        disposition: 'approved',
        data: { requester: vera.uid, approvals: 1, approvals_needed: needed },
      })
    this.write({ ...facts, code: 'grant.activate', message: 'it may be used', data: {} })
  }

  /** The grant is over: rejected, revoked, expired or given back. */
  endGrant(id: string, how: 'reject' | 'revoke' | 'expire' | 'burn', endedAt?: number): void {
    this.write({
      code: `grant.${how}`,
      message: `grant ended: ${how}`,
      status: 'success',
      actor: how === 'burn' ? vera : olga,
      device: 'press-07',
      grant: id,
      data: endedAt === undefined ? {} : { ended_at: Math.floor(endedAt / 1000) },
    })
  }

  use(id: string): void {
    this.write({
      code: 'grant.use',
      message: 'grant used for the first time',
      status: 'success',
      actor: vera,
      device: 'press-07',
      grant: id,
    })
  }

  start(
    session: string,
    grant: string,
    other: {
      process?: string
      person?: Person
      recording?: { recording: string; recipients: string[] }
    } = {},
  ): void {
    const { process = 'plc', person = vera, recording = {} } = other
    const facts = { device: 'press-07', process, grant, session }
    const startIdx = this.write({
      ...facts,
      code: 'session.start',
      message: 'session to press-07/plc opened',
      status: 'success',
      actor: { ...person, authn: { methods: ['pwd', 'otp'], at: Math.floor(this.time / 1000) } },
      src: { ip: '192.0.2.7', port: 50_000 },
      disposition: 'allowed',
      data: { party: 'vendor', kind: 'ira', ...recording },
    })
    this.active.set(session, { ...facts, party: 'vendor', kind: 'ira', startIdx })
  }

  end(session: string, root?: string): void {
    const line = this.active.get(session)
    this.active.delete(session)
    if (line === undefined) throw new Error(`${session} is not active`)
    this.write({
      code: 'session.end',
      message: 'session to press-07/plc ended',
      status: 'success',
      reason: 'client_done',
      actor: vera,
      device: line.device,
      process: line.process,
      grant: line.grant,
      session,
      data: {
        bytes_in: 51_200,
        bytes_out: 8_192,
        duration_ms: 600_000,
        start_idx: line.startIdx,
        recording_root: root,
      },
    })
  }

  open(): void {
    this.write({ code: 'log.open', message: 'Log opened', status: 'success', data: {} })
    this.one.sign(this.time)
  }
  stop(): void {
    this.write({ code: 'log.close', message: 'Log closed', status: 'success' })
    this.one.sign(this.time)
  }
}

/** Two hours: one vendor, one approver, two sessions, writes to a PLC, a refusal, a stop in order. */
export function ordinary(directory: string): Month {
  const month = new Month(directory)
  month.open()
  month.pass(10)
  month.grant('g_1')
  month.pass(5)
  month.start('s_1', 'g_1')
  month.pass(4)
  for (const quantity of [1, 2])
    month.write({
      code: 'ot.write',
      message: 'Modbus function 16 written',
      status: 'success',
      session: 's_1',
      device: 'press-07',
      data: { unit: 1, function_code: 16, address: 40, quantity },
    })
  month.pass(6)
  month.end('s_1')
  month.pass(5)
  month.write({
    code: 'session.deny',
    message: 'session to press-07/plc refused: grant.none',
    status: 'failure',
    reason: 'grant.none',
    disposition: 'blocked',
    actor: { uid: 'https://idp.test|mallory', name: 'mallory@vendor.test', party: 'vendor' },
    device: 'press-07',
    process: 'plc',
    data: {},
  })
  month.stop()
  month.time += 10 * minute
  month.open()
  month.pass(5)
  month.start('s_2', 'g_1')
  month.pass(5)
  month.end('s_2')
  month.pass(5)
  return month
}

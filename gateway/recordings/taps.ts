/** What of a connection is recorded, by the kind of its process: bytes and controls in, records of the format out. */
import { constants } from 'node:os'
import { CastWriter, pcapPacket, type Format } from '#audit'
import type { GateOutcome, ModbusVerdict } from '#ot'

/** Sees everything of one connection before it goes on. */
export interface Tap {
  /** `in`: from the person to the device. */
  data(direction: 'in' | 'out', bytes: Uint8Array): void
  /** A control beside the bytes, as it stands on the stream. */
  signal(direction: 'in' | 'out', payload: Uint8Array): void
  /** What a Modbus gate made of what came from `direction`. */
  judged(direction: 'in' | 'out', outcome: GateOutcome): void
  /** True: the disk is behind, and more should wait with its sender. */
  readonly full: boolean
  onDrain: (() => void) | undefined
  /** The connection is over. */
  end(): void
}

/** Where records go: one file of the recording. */
export interface Sink {
  write(record: Uint8Array): void
  readonly full: boolean
  end(): void
}

/**
 * What is kept of a process of that kind. Through ssh passes what only its two ends can read: of it, as of every
 * session, there is the flow record in the log.
 */
export function formatOf(kind: string): Format {
  return FORMATS[kind] ?? 'pcapng'
}
const FORMATS: Readonly<Record<string, Format>> = {
  spawn: 'asciicast',
  http: 'weblog',
  ssh: 'flow',
  modbus: 'pcapng',
  tcp: 'pcapng',
  udp: 'pcapng',
}

export interface Terminal {
  readonly cols: number
  readonly rows: number
  readonly term?: string | undefined
  /** The agent says that the program has it; where it does not, the program has pipes. */
  readonly granted?: boolean | undefined
}

export interface TerminalOptions {
  readonly title: string
  readonly terminal: Terminal
  /** What the person types at a terminal is kept too, passwords among it. */
  readonly input: boolean
  /** Epoch milliseconds. */
  readonly now: () => number
  /** Makes the file, which begins with its header. */
  readonly open: (header: Uint8Array) => Sink
}

/**
 * A program that the agent started: what it showed, and when. A terminal echoes what is typed; pipes echo nothing, and
 * whether there is a terminal is the person's choice. So what goes into a program without one is always kept.
 */
export function terminalTap(options: TerminalOptions): Tap {
  const { title, now } = options
  const input = options.input || options.terminal.granted !== true
  const cast = new CastWriter(now())
  let { terminal } = options
  let sink: Sink | undefined
  let status: number | undefined
  // Of sizes nobody's credit is taken: while the disk is behind only the latest is kept.
  let held: { readonly cols: number; readonly rows: number } | undefined
  const resized = (out: Sink): Sink => {
    if (held !== undefined) out.write(cast.resize(held.cols, held.rows, now()))
    held = undefined
    return out
  }
  // Made when something is there to see, so that a size that is told first is the size it begins with.
  const file = (): Sink =>
    resized((sink ??= options.open(cast.header({ ...terminal, at: now(), title }))))
  const tap: Tap = {
    onDrain: undefined,
    get full() {
      return sink?.full ?? false
    },
    data(direction, bytes) {
      if (direction === 'out') file().write(cast.output(bytes, now()))
      else if (input) file().write(cast.input(bytes, now()))
    },
    signal(direction, payload) {
      const told = readSignal(payload)
      if (direction === 'in' && told?.t === 'winsize') {
        const { cols, rows } = told
        if (!isSize(cols) || !isSize(rows)) return
        if (sink === undefined) terminal = { ...terminal, cols, rows }
        else {
          held = { cols, rows }
          if (!sink.full) resized(sink)
        }
      }
      if (direction === 'out' && told?.t === 'exit') status = statusOf(told)
    },
    judged() {},
    end() {
      const out = file()
      out.write(status === undefined ? cast.rest(now()) : cast.exit(status, now()))
      out.end()
    },
  }
  return tap
}

function isSize(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) > 0 && (value as number) <= 65_535
}

/** As a shell has it: the code, or 128 and the number of the signal. */
function statusOf({ code, signal }: Told): number | undefined {
  if (Number.isInteger(code)) return code as number
  const number = Object.entries(constants.signals).find(([name]) => name === signal)?.[1]
  return number === undefined ? undefined : 128 + number
}

interface Told {
  readonly t?: unknown
  readonly signal?: unknown
  readonly cols?: unknown
  readonly rows?: unknown
  readonly code?: unknown
}

function readSignal(payload: Uint8Array): Told | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(payload))
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}

export interface PacketOptions {
  readonly kind: string
  /** Of the person; null where it is not known. */
  readonly ip: string | null
  /** Counts connections of the session from 1: streams have no port, and a reader tells them apart by one. */
  readonly connection: number
  readonly now: () => number
  readonly sink: Sink
}

/** Where Wireshark looks which side of Modbus/TCP asks. */
const MODBUS_PORT = 502
const FIRST_PORT = 49_152

/** A protocol whose messages stand in the clear. Of Modbus each request has its verdict beside it. */
export function packetTap({ kind, ip, connection, now, sink }: PacketOptions): Tap {
  const modbus = kind === 'modbus'
  const person = { ip: ip ?? '0.0.0.0', port: FIRST_PORT + (connection % 16_384) }
  // What the agent dials is its own business; only the family is told, so that a reader shows both.
  const device = { ip: person.ip.includes('.') ? '0.0.0.0' : '::', port: modbus ? MODBUS_PORT : 0 }
  const protocol = modbus ? 'mbtcp' : 'data'
  const transport = kind === 'udp' ? 'udp' : 'tcp'
  const put = (direction: 'in' | 'out', bytes: Uint8Array, comment?: string): void => {
    const [from, to] = direction === 'in' ? [person, device] : [device, person]
    const packet = { at: now(), protocol, transport, from, to, direction, bytes, comment } as const
    sink.write(pcapPacket(packet))
  }
  return {
    onDrain: undefined,
    get full() {
      return sink.full
    },
    data(direction, bytes) {
      if (!modbus) put(direction, bytes)
    },
    signal() {},
    judged(direction, { verdicts, toClient, violation }) {
      for (const verdict of verdicts) put('in', verdict.request, commentOn(verdict))
      for (const reply of toClient) put('out', reply)
      if (violation !== undefined)
        put(direction, new Uint8Array(0), `violation, the connection is cut: ${violation.message}`)
    },
    // The file belongs to the whole session, and goes on.
    end: () => sink.end(),
  }
}

/** What was made of a request, in words that a filter can look for. */
function commentOn(verdict: ModbusVerdict): string {
  const { allowed, operation, unit, functionCode, address, quantity, exception } = verdict
  const where = address === null ? '' : ` address ${address} x ${quantity ?? 1}`
  const made = allowed ? 'allowed' : `refused with exception ${exception ?? 0}`
  return `${made}: ${operation} unit ${unit} function ${functionCode}${where}`
}

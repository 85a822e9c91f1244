/** One session's recording while it lives: what each connection is kept as, and an end that the disk and the log have. */
import {
  AuditError,
  pcapHeader,
  webLine,
  type AuditLog,
  type Format,
  type Promised,
  type Recipient,
  type Recorder,
  type Track,
} from '#audit'
import { packetTap, terminalTap, type Sink, type Tap, type Terminal } from './taps.ts'
import { close, type Names } from './told.ts'

type WebRequest = Parameters<typeof webLine>[0]

/** What a recording needs of its node. */
export interface Recording {
  readonly directory: string
  readonly log: Pick<AuditLog, 'append'>
  /** What people type in a terminal is kept too. */
  readonly terminalInput: boolean
  readonly version: string
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

/** What a session says of itself when it asks to be recorded. */
export interface Recorded extends Names {
  readonly kind: string
  readonly maxBytes: number
}

/** How long the disk may take for the last part. */
const END_MS = 20_000

/** The recording of one session while it lives. */
export class SessionRecording {
  readonly id: string
  readonly format: Format
  readonly recipients: readonly string[]
  budget = 0
  /** What the log promised it; undefined on a disk of its own. */
  room: Promised | undefined
  /** Gives back what it was promised. */
  readonly over: () => void
  readonly #session: Recorded
  readonly #options: Recording
  readonly #waiting = new Set<Tap>()
  #recorder: Recorder | undefined
  #packets: Track | undefined
  #requests: Track | undefined
  #connections = 0

  constructor(
    session: Recorded,
    format: Format,
    sealedTo: readonly Recipient[],
    options: Recording,
    over: () => void,
  ) {
    this.id = session.id
    this.format = format
    this.recipients = sealedTo.map(({ text }) => text)
    this.#session = session
    this.#options = options
    this.over = over
  }

  /** Bytes it may still write. */
  get remaining(): number {
    return Math.max(0, this.budget - (this.#recorder?.bytes ?? 0))
  }

  attach(recorder: Recorder): void {
    this.#recorder = recorder
  }

  /** What sees everything of the next connection; `ip` is where the person comes from. */
  tap(ip: string | null, terminal: Terminal = { cols: 80, rows: 24 }): Tap {
    const { now, terminalInput } = this.#options
    const { kind, device, process } = this.#session
    const connection = ++this.#connections
    if (this.format === 'asciicast') {
      const tap: Tap = terminalTap({
        title: `${device}/${process}`,
        terminal,
        input: terminalInput,
        now,
        open: (header) => {
          const track = this.#track(header)
          track.onDrain = () => tap.onDrain?.()
          return sinkOf(track, () => void track.end())
        },
      })
      return tap
    }
    // A native connection to a web process is packets too, in a file beside the requests.
    const shared = (this.#packets ??= this.#common(
      pcapHeader(`Sallyport ${this.#options.version}`, `session ${this.id}, ${device}/${process}`),
    ))
    const tap = packetTap({
      kind,
      ip,
      connection,
      now,
      sink: sinkOf(shared, () => this.#waiting.delete(tap)),
    })
    this.#waiting.add(tap)
    return tap
  }

  /** One request of a web session. */
  web(request: Omit<WebRequest, 'session' | 'device' | 'process'>): void {
    const { id, device, process } = this.#session
    this.#requests ??= this.#common(new Uint8Array(0))
    this.#requests.write(webLine({ ...request, session: id, device, process }))
  }

  /** A file that all connections share. */
  #common(header: Uint8Array): Track {
    const track = this.#track(header)
    track.onDrain = () => {
      for (const tap of this.#waiting) tap.onDrain?.()
    }
    return track
  }

  #track(header: Uint8Array): Track {
    const recorder = this.#recorder
    if (recorder === undefined) throw new Error('a recording is used before it was begun')
    return recorder.track(header)
  }

  /**
   * Nothing more is recorded: brings the last parts to disk and the end to the log. Gives the root over all parts;
   * undefined where the disk or the log did not take it in time, which the next start of the node makes up for. What it
   * was promised it keeps for as long as the disk may still take what it has.
   */
  async end(reason: string): Promise<string | undefined> {
    const { directory, log, report } = this.#options
    const written = this.#recorder?.end().then(
      () => undefined,
      async () => this.#recorder?.idle(),
    )
    let late = written !== undefined
    try {
      await inTime(written)
      late = false
      return await close(directory, log, this.#session, reason)
    } catch (error) {
      report(error, `the recording of session ${this.id} could not be closed`)
      return undefined
    } finally {
      if (late) void written?.then(this.over, this.over)
      else this.over()
    }
  }

  /** The session was not opened after all. */
  async discard(): Promise<void> {
    try {
      await this.#recorder?.discard()
    } catch (error) {
      this.#options.report(error, `what was begun for ${this.id} could not be taken away`)
    } finally {
      this.over()
    }
  }
}

function sinkOf(track: Track, end: () => void): Sink {
  return {
    write: (record) => track.write(record),
    get full() {
      return track.full
    },
    end,
  }
}

async function inTime(work: Promise<unknown> | undefined): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const slow = () =>
      reject(new AuditError('recording.slow', 'the disk does not take the last part'))
    timer = setTimeout(slow, END_MS)
  })
  try {
    await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * asciicast v3: a terminal as it was seen. A header, then one event a line: the seconds since the line before, what
 * it is, and its text. docs.asciinema.org/manual/asciicast/v3
 */
const encoder = new TextEncoder()

export interface CastHeader {
  readonly cols: number
  readonly rows: number
  /** Epoch milliseconds at which the recording begins. */
  readonly at: number
  /** TERM, as the program was told. */
  readonly term?: string | undefined
  readonly command?: string | undefined
  readonly title?: string | undefined
}

/** The longest text of one event: what is longer becomes several at the same instant. */
const MAX_TEXT = 16 * 1024

/** Writes the lines of one terminal. What it was given is bytes: text is UTF-8, and what is not becomes U+FFFD. */
export class CastWriter {
  readonly #decoders = { o: decoder(), i: decoder() }
  /** Milliseconds: intervals are differences of whole ones, so that none is lost to rounding. */
  #at: number

  constructor(startedAt: number) {
    this.#at = Math.round(startedAt)
  }

  header({ cols, rows, at, term, command, title }: CastHeader): Uint8Array {
    const line = {
      version: 3,
      term: { cols, rows, ...(term === undefined ? {} : { type: term }) },
      timestamp: Math.floor(at / 1000),
      ...(command === undefined ? {} : { command }),
      ...(title === undefined ? {} : { title }),
    }
    return encoder.encode(`${JSON.stringify(line)}\n`)
  }

  /** What the program wrote, at `now` (epoch milliseconds). */
  output(bytes: Uint8Array, now: number): Uint8Array {
    return this.#text('o', this.#decoders.o.decode(bytes, { stream: true }), now)
  }

  /** What the person typed. Passwords are typed too: kept only where somebody asked for it. */
  input(bytes: Uint8Array, now: number): Uint8Array {
    return this.#text('i', this.#decoders.i.decode(bytes, { stream: true }), now)
  }

  resize(cols: number, rows: number, now: number): Uint8Array {
    return this.#line('r', `${cols}x${rows}`, now)
  }

  mark(label: string, now: number): Uint8Array {
    return this.#line('m', label, now)
  }

  /** How the program ended. The last line, but for what was half a character. */
  exit(status: number, now: number): Uint8Array {
    return Buffer.concat([this.rest(now), this.#line('x', String(status), now)])
  }

  /** What a stream that ended in the middle of a character leaves. */
  rest(now: number): Uint8Array {
    const { o, i } = this.#decoders
    return Buffer.concat([this.#text('i', i.decode(), now), this.#text('o', o.decode(), now)])
  }

  #text(code: 'o' | 'i', text: string, now: number): Uint8Array {
    if (text.length <= MAX_TEXT)
      return text === '' ? new Uint8Array(0) : this.#line(code, text, now)
    const lines: Uint8Array[] = []
    for (let at = 0; at < text.length;) {
      // Never between the halves of a surrogate pair.
      const high = (text.charCodeAt(at + MAX_TEXT - 1) & 0xfc00) === 0xd800
      const next = at + MAX_TEXT - (high ? 1 : 0)
      lines.push(this.#line(code, text.slice(at, next), now))
      at = next
    }
    return Buffer.concat(lines)
  }

  #line(code: string, text: string, now: number): Uint8Array {
    // A clock that was put back makes no negative interval.
    const at = Math.max(this.#at, Math.round(now))
    const interval = ((at - this.#at) / 1000).toFixed(3)
    this.#at = at
    return encoder.encode(`[${interval}, "${code}", ${JSON.stringify(text)}]\n`)
  }
}

function decoder(): TextDecoder {
  return new TextDecoder('utf-8', { ignoreBOM: true })
}

export interface CastEvent {
  /** Milliseconds since the beginning. */
  readonly at: number
  readonly code: string
  readonly text: string
}

export interface Cast {
  readonly cols: number
  readonly rows: number
  readonly timestamp: number | undefined
  readonly events: readonly CastEvent[]
}

const size = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= 65_535

/** Reads a recording. Undefined, with no word of it played, where a line is not of the format. */
export function readCast(text: string): Cast | undefined {
  const [first, ...lines] = text.split('\n')
  const header = parse(first ?? '')
  if (typeof header !== 'object' || header === null || !('version' in header)) return undefined
  const term: unknown = 'term' in header ? header.term : undefined
  if (header.version !== 3 || typeof term !== 'object' || term === null) return undefined
  const { cols, rows } = term as { readonly cols?: unknown; readonly rows?: unknown }
  if (!size(cols) || !size(rows)) return undefined
  const timestamp = 'timestamp' in header ? header.timestamp : undefined
  if (timestamp !== undefined && !Number.isInteger(timestamp)) return undefined
  const events: CastEvent[] = []
  let at = 0
  for (const line of lines) {
    if (line === '' || line.startsWith('#')) continue
    const event = parse(line)
    if (!Array.isArray(event) || event.length !== 3) return undefined
    const [interval, code, data] = event as readonly unknown[]
    if (typeof interval !== 'number' || interval < 0 || typeof code !== 'string') return undefined
    if (typeof data !== 'string' || (code === 'r' && !/^\d{1,5}x\d{1,5}$/.test(data)))
      return undefined
    at += Math.round(interval * 1000)
    events.push({ at, code, text: data })
  }
  return { cols, rows, timestamp: timestamp as number | undefined, events }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

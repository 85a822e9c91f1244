/**
 * A person's terminal as the two ends of a spawned program: keys as they are pressed, the size of the
 * window, and a way out that the program cannot take away.
 */
import { Transform, type TransformCallback } from 'node:stream'
import { outOf, type Ends } from './stdio.ts'

export interface Size {
  readonly rows: number
  readonly cols: number
}

/** The terminal that a program is told of. */
export interface PersonTerminal extends Ends {
  readonly term: string
  size(): Size
  onResize(handler: (size: Size) => void): void
  /** The program has a terminal: keys are its own from here on. */
  begin(): void
  /** As it was before. Idempotent. */
  restore(): void
}

const MOST = 1000
/** A terminal that was never told its size says 0. */
const within = (count: number | undefined, otherwise: number) =>
  count === undefined || count < 1 ? otherwise : Math.min(MOST, count)

/**
 * The terminal that this program runs on; undefined where either end is none. `leave` is called when
 * the person types `~.` at the beginning of a line.
 */
export function personTerminal(leave: () => void): PersonTerminal | undefined {
  const { stdin, stdout } = process
  if (!stdin.isTTY || !stdout.isTTY) return undefined
  const size = () => ({ rows: within(stdout.rows, 24), cols: within(stdout.columns, 80) })
  let raw = false
  return {
    reader: stdin.pipe(new Escape(leave)),
    writer: outOf(1),
    term: /^[A-Za-z0-9+._-]{1,64}$/.exec(process.env['TERM'] ?? '')?.[0] ?? 'dumb',
    size,
    onResize: (handler) => void stdout.on('resize', () => handler(size())),
    begin: () => {
      raw = true
      stdin.setRawMode(true)
    },
    restore: () => {
      if (raw) stdin.setRawMode(false)
      raw = false
      stdin.destroy()
    },
  }
}

const TILDE = 0x7e
const DOT = 0x2e
const LINE_ENDS = [0x0a, 0x0d]

/** Passes keys on, and takes `~.` at the beginning of a line for itself. `~~` there is one `~`. */
export class Escape extends Transform {
  readonly #leave: () => void
  #state: 'start' | 'tilde' | 'line' = 'start'

  constructor(leave: () => void) {
    super()
    this.#leave = leave
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    const out: number[] = []
    for (const octet of chunk) {
      if (this.#state === 'start' && octet === TILDE) {
        this.#state = 'tilde'
        continue
      }
      if (this.#state === 'tilde') {
        if (octet === DOT) {
          this.#leave()
          continue
        }
        if (octet !== TILDE) out.push(TILDE)
      }
      out.push(octet)
      this.#state = LINE_ENDS.includes(octet) ? 'start' : 'line'
    }
    done(null, Buffer.from(out))
  }
}

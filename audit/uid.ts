/**
 * The names of events: UUIDs of version 7 (RFC 9562 5.7), made for many at a time, because one costs a quarter then. Pure:
 * the time and the randomness are the caller's.
 */

const perPool = 256
/** Three digits, one that also gives the variant, fifteen more. */
const digitsEach = 19
const poolBytes = Math.ceil((perPool * digitsEach) / 2)

/** The digit that holds the variant (binary 10) over two random bits of another. */
const variantOf: Readonly<Record<string, string>> = Object.fromEntries(
  Array.from({ length: 16 }, (_, digit) => [digit.toString(16), '89ab'[digit % 4] as string]),
)

export class Uids {
  readonly #random: (n: number) => Uint8Array
  #digits = ''
  #at = 0
  #ms = Number.NaN
  /** All of it that the time gives. */
  #begin = ''

  /** `random` gives n random bytes. */
  constructor(random: (n: number) => Uint8Array) {
    this.#random = random
  }

  /** One more, of the instant `nowMs` (epoch milliseconds; before 1970 is 1970). */
  next(nowMs: number): string {
    if (nowMs !== this.#ms) {
      const time = Math.max(0, Math.floor(nowMs)).toString(16).padStart(12, '0').slice(-12)
      this.#begin = `${time.slice(0, 8)}-${time.slice(8)}-7`
      this.#ms = nowMs
    }
    if (this.#at + digitsEach > this.#digits.length) {
      const bytes = this.#random(poolBytes)
      this.#digits = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
      this.#at = 0
    }
    const [digits, at] = [this.#digits, this.#at]
    this.#at += digitsEach
    const variant = variantOf[digits[at + 3] as string] as string
    return `${this.#begin}${digits.slice(at, at + 3)}-${variant}${digits.slice(at + 4, at + 7)}-${digits.slice(at + 7, at + 19)}`
  }
}

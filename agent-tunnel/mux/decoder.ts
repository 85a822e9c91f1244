/**
 * Any chunks -> frames; the only clever buffer. DATA is handed out piece by piece as it arrives;
 * every other frame comes whole. Nothing is kept that its limits do not allow.
 */
import { MuxError } from './errors.ts'
import { EXTENSION, MAX_EXTENSION, MAX_ID, shapes, TYPE } from './frame.ts'
import { getU32, HEADER } from './octets.ts'

/** What `next` found. `begin`, `piece` and `done` belong to DATA. */
export type Token = 'need' | 'begin' | 'piece' | 'frame' | 'extension'

const empty = new Uint8Array(0)

/**
 * A pull parser: `feed` a chunk, call `next` until it says `need`. The fields describe what was
 * found last; they are overwritten by the next call, the bytes they point at are not.
 */
export class Decoder {
  type = 0
  stream = 0
  /** Of the whole payload. */
  length = 0
  /** `piece`: the chunk's part that is payload. */
  start = 0
  end = 0
  /** `frame`: the whole payload, a view into the chunk unless the frame was split. */
  payload: Uint8Array = empty

  readonly #maxFrame: number
  #chunk: Uint8Array = empty
  #at = 0
  readonly #header = new Uint8Array(HEADER)
  #headerHas = 0
  /** Payload octets still to come; -1 while the header is incomplete. */
  #left = -1
  #split: Uint8Array | undefined
  #first = true

  /** `maxFrame`: the largest DATA payload in bytes that this end announced. */
  constructor(maxFrame: number) {
    this.#maxFrame = maxFrame
  }

  /** Whether the bytes so far end at a frame's edge. */
  get whole(): boolean {
    return this.#headerHas === 0 && this.#left < 0
  }

  /** The octets of an unfinished header, for saying what a peer that never finished one had sent. */
  get remainder(): Uint8Array {
    return this.#header.subarray(0, this.#headerHas)
  }

  feed(chunk: Uint8Array): void {
    this.#chunk = chunk
    this.#at = 0
  }

  /** Throws MuxError: `frame.type`, `frame.length`, `frame.short`, `frame.stream`, hello.missing and kin. */
  next(): Token {
    if (this.#left < 0) {
      if (!this.#readHeader()) return this.#drained()
      this.#check()
      this.#left = this.length
      if (this.type === TYPE.data) return 'begin'
    }
    const available = this.#chunk.length - this.#at
    if (this.type === TYPE.data) return this.#data(available)
    if (this.type >= EXTENSION) return this.#skip(available)
    return this.#whole(available)
  }

  #drained(): Token {
    this.#chunk = empty
    this.#at = 0
    return 'need'
  }

  #readHeader(): boolean {
    const available = this.#chunk.length - this.#at
    if (this.#headerHas === 0 && available >= HEADER) {
      this.#take(this.#chunk, this.#at)
      this.#at += HEADER
      return true
    }
    const length = Math.min(HEADER - this.#headerHas, available)
    this.#header.set(this.#chunk.subarray(this.#at, this.#at + length), this.#headerHas)
    this.#headerHas += length
    this.#at += length
    if (this.#headerHas < HEADER) return false
    this.#headerHas = 0
    this.#take(this.#header, 0)
    return true
  }

  #take(from: Uint8Array, at: number): void {
    const word = getU32(from, at)
    this.type = word >>> 24
    this.length = word & 0xff_ffff
    this.stream = getU32(from, at + 4)
    if (!this.#first) return
    this.#first = false
    if (this.type !== TYPE.hello) throw foreign(from.subarray(at, at + HEADER))
  }

  #check(): void {
    const shape = shapes[this.type]
    if (shape === undefined) {
      if (this.type < EXTENSION) throw new MuxError('frame.type', 'remote', `type ${this.type}`)
      if (this.length <= MAX_EXTENSION) return
      throw new MuxError('frame.length', 'remote', `extension of ${this.length}`)
    }
    const most = this.type === TYPE.data ? this.#maxFrame : shape.most
    const found = `${shape.name} of ${this.length}`
    if (this.length > most) throw new MuxError('frame.length', 'remote', found)
    if (this.length < shape.least) throw new MuxError('frame.short', 'remote', found)
    const rightId = shape.onStream ? this.stream > 0 && this.stream <= MAX_ID : this.stream === 0
    if (!rightId) throw new MuxError('frame.stream', 'remote', `${shape.name} on ${this.stream}`)
  }

  #data(available: number): Token {
    if (this.#left === 0) {
      this.#left = -1
      return this.next()
    }
    if (available === 0) return this.#drained()
    const length = Math.min(available, this.#left)
    this.start = this.#at
    this.end = this.#at + length
    this.#at = this.end
    this.#left -= length
    if (this.#left === 0) this.#left = -1
    return 'piece'
  }

  #skip(available: number): Token {
    const length = Math.min(available, this.#left)
    this.#at += length
    this.#left -= length
    if (this.#left > 0) return this.#drained()
    this.#left = -1
    return 'extension'
  }

  #whole(available: number): Token {
    if (this.#split === undefined && available >= this.#left) {
      this.payload = this.#chunk.subarray(this.#at, this.#at + this.#left)
      this.#at += this.#left
      this.#left = -1
      return 'frame'
    }
    // Its own buffer each time: the last one may still be waiting to be looked at.
    this.#split ??= new Uint8Array(this.length)
    const length = Math.min(available, this.#left)
    this.#split.set(this.#chunk.subarray(this.#at, this.#at + length), this.length - this.#left)
    this.#at += length
    this.#left -= length
    if (this.#left > 0) return this.#drained()
    this.payload = this.#split
    this.#split = undefined
    this.#left = -1
    return 'frame'
  }
}

const httpStarts = [
  'GET ',
  'POST',
  'PUT ',
  'HEAD',
  'OPTI',
  'CONN',
  'DELE',
  'PATC',
  'TRAC',
  'PRI ',
  'HTTP',
]

/** The error for a connection that does not begin with HELLO, as precise as its first octets allow. */
export function foreign(start: Uint8Array): MuxError {
  const text = String.fromCharCode(...start.subarray(0, 4))
  if (httpStarts.includes(text)) return new MuxError('hello.http', 'remote', text.trim())
  if (start[0] === 0x16 && start[1] === 0x03) return new MuxError('hello.tls', 'remote')
  const hex = Array.from(start, (octet) => octet.toString(16).padStart(2, '0')).join(' ')
  return new MuxError('hello.missing', 'remote', hex === '' ? 'nothing' : hex)
}

/** Every frame and every protocol error as data, whole, halved and octet by octet. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Decoder, encode, muxCodes, parse, TYPE } from '#mux'
import type { Frame, Limits, MuxCode } from '#mux'
import { End } from '../support/pair.ts'

const folder = join(import.meta.dirname, '../vectors/frames')
function vectors<T>(name: string): T[] {
  return JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as T[]
}
const fromHex = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex')

type Cut = (bytes: Buffer) => Buffer[]
const cuts: Record<string, Cut> = {
  whole: (bytes) => [bytes],
  halves: (bytes) => [bytes.subarray(0, bytes.length >> 1), bytes.subarray(bytes.length >> 1)],
  'octet by octet': (bytes) => Array.from(bytes, (octet) => Buffer.of(octet)),
}

interface FrameVector {
  readonly name: string
  readonly bytes: string
  readonly frame: Record<string, unknown>
}

/** Frames of a byte string through the decoder; DATA is put together again. */
function decode(chunks: readonly Buffer[]): Frame[] {
  const decoder = new Decoder(0xff_ffff)
  // A decoder wants HELLO first.
  const hello = fromHex(vectors<FrameVector>('frames')[0]!.bytes)
  const frames: Frame[] = []
  let data: Buffer[] = []
  for (const chunk of [hello, ...chunks]) {
    decoder.feed(chunk)
    for (let token = decoder.next(); token !== 'need'; token = decoder.next()) {
      if (token === 'begin') data = []
      if (token === 'piece') data.push(Buffer.from(chunk.subarray(decoder.start, decoder.end)))
      const payload = token === 'piece' ? Buffer.concat(data) : Buffer.from(decoder.payload)
      const whole = token === 'frame' || (token === 'piece' && payload.length === decoder.length)
      if (whole) frames.push(parse(decoder.type, decoder.stream, payload))
    }
  }
  return frames.slice(1)
}

/** A frame as its vector writes it. */
function written(frame: Frame): unknown {
  return JSON.parse(
    JSON.stringify(frame, (_key, value: unknown) => {
      if (typeof value === 'bigint') return value.toString()
      const buffer = value as { type?: unknown; data?: number[] } | null
      if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
      return buffer?.type === 'Buffer' && Array.isArray(buffer.data)
        ? Buffer.from(buffer.data).toString('hex')
        : value
    }),
  )
}

describe('frames', () => {
  const all = vectors<FrameVector>('frames')
  test('there is one for every type', () => {
    const seen = new Set(all.map((vector) => String(vector.frame['type'])))
    expect([...seen].sort()).toEqual(Object.keys(TYPE).sort())
  })
  describe.each(Object.entries(cuts))('%s', (_name, cut) => {
    test.for(all)('$name', (vector) => {
      const bytes = fromHex(vector.bytes)
      const frames = decode(cut(bytes))
      expect(frames.map(written)).toEqual([vector.frame])
      expect(Buffer.from(encode(frames[0]!)).toString('hex')).toBe(bytes.toString('hex'))
    })
  })
})

interface SessionVector {
  readonly name: string
  readonly bytes: string
  readonly greeted?: boolean
  readonly opens?: number
  readonly accepts?: boolean
  readonly repeat?: number
  readonly step?: number
  readonly ends?: boolean
  readonly limits?: Partial<Limits>
  readonly outcome: {
    readonly error?: string
    readonly notes?: string[]
    readonly answers?: string
  }
}

const greeting = fromHex(vectors<FrameVector>('frames')[0]!.bytes)

/** The vector's octets, repeated, with the stream ids of OPEN, REFUSE and RESET rising. */
function repeated(vector: SessionVector): Buffer {
  const one = fromHex(vector.bytes)
  const all: Buffer[] = []
  for (let round = 0; round < (vector.repeat ?? 1); round++) {
    const copy = Buffer.from(one)
    for (let at = 0; vector.step !== undefined && at < copy.length;) {
      copy.writeUInt32BE(copy.readUInt32BE(at + 4) + round * vector.step, at + 4)
      at += 8 + copy.readUIntBE(at + 1, 3)
    }
    all.push(copy)
  }
  return Buffer.concat(all)
}

function run(vector: SessionVector, cut: Cut): SessionVector['outcome'] {
  const end = new End('acceptor', 'gateway', vector.limits ?? {}, { now: 1000 })
  const hear = (bytes: Buffer): void => {
    end.hear(bytes)
    end.deliver()
    if (vector.accepts !== true) return
    for (const stream of end.session.streams) {
      if (stream.state === 'offered') end.session.accept(stream, Buffer.alloc(0))
    }
  }
  if (vector.greeted !== false) hear(greeting)
  for (let at = 0; at < (vector.opens ?? 0); at++) end.session.open('tcp', Buffer.alloc(0), end.now)
  const output = (): string => Buffer.from(end.session.output(end.now) ?? []).toString('hex')
  // What a test vector asks of the backlog has to stay unsent.
  const before = vector.outcome.answers === undefined ? '' : output()
  end.session.sent()
  // Accepting needs the OPEN to have been seen: it comes by itself then, before the rest.
  const parts = vector.accepts === true ? frameWise(repeated(vector)) : [repeated(vector)]
  for (const part of parts) for (const chunk of cut(part)) hear(chunk)
  if (vector.ends === true) end.take(end.session.ended())
  if (end.failure !== undefined) return { error: end.failure }
  const notes = end.notes.map((note) =>
    [note.type, note.id === 0 ? '' : String(note.id), note.code ?? ''].filter(Boolean).join(' '),
  )
  const answers = output()
  if (vector.outcome.answers === undefined) return { notes }
  expect(before).not.toBe('')
  return { notes, answers }
}

/** A first OPEN apart from the rest, so that it can be accepted in between. */
function frameWise(bytes: Buffer): Buffer[] {
  if (bytes.length < 9 || bytes[0] !== TYPE.open) return [bytes]
  const length = 8 + bytes.readUIntBE(1, 3)
  return [bytes.subarray(0, length), bytes.subarray(length)]
}

describe('sessions', () => {
  const all = vectors<SessionVector>('sessions')
  describe.each(Object.entries(cuts))('%s', (_name, cut) => {
    test.for(all)('$name', (vector) => {
      const wanted = { ...vector.outcome }
      const answers = wanted.answers?.replaceAll(' ', '')
      expect(run(vector, cut)).toEqual(answers === undefined ? wanted : { ...wanted, answers })
    })
  })

  test('every code the peer can cause by bytes alone has a vector', () => {
    // These need a clock, a carrier, or a mistake of our own; other tests have them.
    const elsewhere: MuxCode[] = ['hello.timeout', 'peer.silent', 'carrier.text', 'carrier.failed']
    const codes = (Object.keys(muxCodes) as MuxCode[]).filter(
      (code) => !code.startsWith('call.') && !elsewhere.includes(code),
    )
    const seen = new Set(all.map((vector) => vector.outcome.error))
    expect(codes.filter((code) => !seen.has(code))).toEqual([])
  })

  test('numbers on the wire are given once', () => {
    const numbers = Object.values(muxCodes).map((row) => row.wire)
    expect(new Set(numbers).size).toBe(numbers.length)
  })
})

describe('what a header announces is not taken at its word', () => {
  const decoders = 500
  /** Octets that so many decoders hold when each has had HELLO and this header. */
  function held(header: string): number {
    const before = process.memoryUsage().arrayBuffers
    const all = Array.from({ length: decoders }, () => {
      const decoder = new Decoder(2 ** 24 - 1)
      for (const bytes of [greeting, fromHex(header), Buffer.of(0x61)]) {
        decoder.feed(bytes)
        while (decoder.next() !== 'need');
      }
      return decoder
    })
    const after = process.memoryUsage().arrayBuffers
    expect(all).toHaveLength(decoders)
    return after - before
  }
  test.for([
    ['DATA of 16 MiB', '05 ffffff 00000001'],
    ['an extension of 64 KiB', '80 010000 00000001'],
  ])('%s takes no memory', ([, header = '']) => {
    expect(held(header)).toBeLessThan(decoders * 1024)
  })
  test('the longest frame that is kept whole takes its own length, once', () => {
    expect(held('06 00ffe3 00000001')).toBeLessThan(decoders * 70_000)
  })
})

test('what parses re-encodes to the same octets, whatever they are', () => {
  const type = fc.constantFrom(...Object.values(TYPE))
  fc.assert(
    fc.property(type, fc.uint8Array({ maxLength: 90 }), (number, payload) => {
      let frame: Frame
      try {
        frame = parse(number, 1, payload)
      } catch {
        return
      }
      // WINDOW, FIN, PING and PONG have one length only; the decoder has held them to it.
      const fixed = { window: 4, fin: 0, ping: 8, pong: 8 }[frame.type as string]
      if (fixed !== undefined && fixed !== payload.length) return
      expect(Buffer.from(encode(frame).subarray(8)).toString('hex')).toBe(
        Buffer.from(payload).toString('hex'),
      )
    }),
    { numRuns: 5000 },
  )
})

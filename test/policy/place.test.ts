/** An input that is placed in the module's memory is the input that would have been written as text. */
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Input, Point } from '#policy'
import { findConstants, useConstants } from '../../policy/constants.ts'
import { Page } from '../../policy/encode.ts'
import { encodeInput, prepare } from '../../policy/input.ts'
import { Lift, UNREAD } from '../../policy/lift.ts'
import { CompiledPolicy } from '../../policy/module.ts'
import type { PolicyInstance } from '../../policy/module.ts'
import { Placer, ROOM_BYTES } from '../../policy/place.ts'
import { ENTRYPOINTS, POINTS } from '../../policy/points.ts'
import { placesWell, SAMPLES } from '../../policy/proof.ts'
import { readsOf } from '../../policy/reads.ts'
import type { Reads } from '../../policy/reads.ts'
import { inputSchema } from '../../policy/schema.ts'
import type { Schema } from '../../policy/schema.ts'
import { findShape } from '../../policy/shape.ts'
import type { Shaping } from '../../policy/shape.ts'
import { baseInputs, readVectors } from '../../policy/toolchain/vectors.ts'
import { builtin } from './fixture.ts'

const bases = await baseInputs()
const open = bases['session.open']
const decoder = new TextDecoder('utf-8', { fatal: true })

/** Both ways in, for policies that read these parts of the input. */
interface Ways {
  readonly compiled: CompiledPolicy
  readonly placing: PolicyInstance
  readonly reading: PolicyInstance
  readonly placer: Placer
  readonly encode: ReturnType<typeof encodeInput>
}

async function waysOf(reads: Reads, wasm = builtin.wasm): Promise<Ways> {
  const { dataText } = builtin
  const compiled = await CompiledPolicy.compile(wasm, dataText, ENTRYPOINTS, reads)
  const { shape } = compiled.image
  if (shape === undefined) throw new Error('the built-in module has no known shape')
  const placing = compiled.instance()
  const placer = new Placer(inputSchema, reads, shape, placing.ground)
  return { compiled, placing, placer, reading: compiled.instance(), encode: encodeInput(reads) }
}

let narrow: Ways
let whole: Ways
beforeAll(async () => {
  narrow = await waysOf(builtin.reads)
  whole = await waysOf(true)
})

/** What the module finds, or where the input is refused: written as text, and placed. */
function bothWays(
  { encode, placer, placing }: Ways,
  input: Input,
): { text: unknown; placed: unknown } {
  const written = prepare(input.action, input, encode)
  const text = written.ok ? JSON.parse(decoder.decode(written.bytes)) : inWords(written.at)
  const again = prepare(input.action, input, placer.encode)
  const found = again.ok ? placing.readPlaced(placer.take()) : undefined
  // A number with a fraction, or very many values, are not lifted but printed.
  if (found !== undefined && found.lifted !== UNREAD) expect(found.lifted).toEqual(found.printed)
  const placed = again.ok ? found?.printed : inWords(again.at)
  return { text, placed }
}

/** Of an input that is too long as a whole, text and placing may come upon it at different fields. */
const inWords = (at: string) => at.replace(/^.*(longer than \d+ bytes)( in all)?$/, '$1')

test('every vector is decided alike, to the last obligation', async () => {
  for (const { name, point, input } of await readVectors()) {
    const { entrypoint } = POINTS[point]
    for (const { encode, placer, placing, reading } of [narrow, whole]) {
      const written = prepare(point, input, encode)
      if (!written.ok) throw new Error(written.at)
      const asText = reading.evaluate(entrypoint, written.bytes)
      expect(prepare(point, input, placer.encode).ok).toBe(true)
      expect(placing.evaluatePlaced(entrypoint, placer.take()), name).toEqual(asText)
    }
  }
})

test('the samples of the proof are inputs, and between them hold every field', () => {
  const encode = encodeInput(true)
  for (const sample of SAMPLES) expect(encode(sample, new Page())).toBeUndefined()
  const nulls = (value: unknown, path: string): string[] => {
    if (value === null) return [path]
    if (typeof value !== 'object') return []
    return Object.entries(value).flatMap(([name, part]) => nulls(part, `${path}.${name}`))
  }
  expect(nulls(SAMPLES[1], '')).toEqual([])
})

/** The fields of a schema that hold one of a few words, by path, and the words. */
function wordFields(schema: Schema, path = ''): [path: string, words: string[]][] {
  const { properties = {}, items, enum: known = [] } = schema
  const words = known.filter((word) => typeof word === 'string')
  return [
    ...(words.length > 0 ? [[path, words] satisfies [string, string[]]] : []),
    ...Object.entries(properties).flatMap(([name, part]) => wordFields(part, `${path}.${name}`)),
    ...(items === undefined ? [] : wordFields(items, `${path}.0`)),
  ]
}

test('the samples hold in each field every word it may hold', () => {
  const at = (value: unknown, path: string): unknown =>
    path
      .split('.')
      .slice(1)
      .reduce<unknown>((part, name) => (part as Record<string, unknown>)[name], value)
  const fields = wordFields(inputSchema)
  expect(fields.length).toBeGreaterThan(10)
  for (const [path, words] of fields) {
    const held = new Set(SAMPLES.slice(1).map((sample) => at(sample, path)))
    expect(held, path).toEqual(new Set<unknown>(words))
  }
})

describe('any input, well-formed or not', () => {
  const scalar = fc.oneof(
    fc.string({ maxLength: 60, unit: 'binary' }),
    fc.integer({ min: -(2 ** 53) + 1, max: 2 ** 53 - 1 }),
    fc.double({ noNaN: true, min: -1e15, max: 1e15 }),
    fc.boolean(),
    fc.constant(null),
  )

  test('odd strings, keys and numbers', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ maxLength: 20 }), scalar, { maxKeys: 8 }), (claims) => {
        const input = { ...open, subject: { ...open.subject, claims } }
        const { text, placed } = bothWays(whole, input)
        expect(placed).toEqual(text)
      }),
      { numRuns: 100 },
    )
  })

  test('any value in the place of any part', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.keys(open)),
        fc.oneof(
          fc.anything().filter((value) => value !== undefined),
          scalar,
          fc.constantFrom(...Object.values(bases)),
        ),
        fc.constantFrom(...(Object.keys(bases) as Point[])),
        (name, value, point) => {
          const input = { ...bases[point], [name]: value } as Input
          for (const ways of [narrow, whole]) {
            const { text, placed } = bothWays(ways, input)
            expect(placed).toEqual(text)
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  test('any value deep in a grant or in what was observed', () => {
    const [grant] = open.grants
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.keys(grant ?? {})),
        fc.oneof(scalar, fc.array(scalar, { maxLength: 5 }), fc.object()),
        fc.integer({ min: 1, max: 33 }),
        (name, value, count) => {
          const grants = Array.from({ length: count }, () => ({ ...grant, [name]: value }))
          const { text, placed } = bothWays(narrow, { ...open, grants } as unknown as Input)
          expect(placed).toEqual(text)
        },
      ),
      { numRuns: 200 },
    )
  })
})

test('the limit is to the byte, fields that no rule reads included', () => {
  for (let bytes = 16_300; bytes < 16_460; bytes++) {
    const groups = Array.from({ length: 140 }, () => 'g'.repeat(97))
    const bare = { ...open, subject: { ...open.subject, groups } }
    const missing = bytes - JSON.stringify(bare).length
    const request_id = `${open.request_id}${'x'.repeat(Math.max(0, Math.min(missing, 100)))}`
    const site = 'y'.repeat(Math.max(0, missing - 100))
    const input = { ...bare, request_id, gateway: { ...open.gateway, site: `plant-7${site}` } }
    for (const ways of [narrow, whole]) {
      const { text, placed } = bothWays(ways, input)
      expect(typeof placed, String(bytes)).toBe(typeof text)
    }
  }
})

test('the costliest input stays within the room that is made for it', () => {
  const claims = Object.fromEntries(
    Array.from({ length: 20 }, (_, at) => [`k${at}`, Array.from({ length: 230 }, () => '')]),
  )
  const ways = bothWays(whole, { ...open, subject: { ...open.subject, claims } })
  expect(ways.placed).toEqual(ways.text)
  expect(typeof ways.placed).toBe('object')
  const { placer, placing } = whole
  prepare('session.open', { ...open, subject: { ...open.subject, claims } }, placer.encode)
  const { end } = placer.take()
  expect(end - placing.ground.base).toBeLessThan(ROOM_BYTES)
})

test('nothing of an input is left to the next one', () => {
  const { placer, placing } = narrow
  const found = (input: Input): unknown => {
    expect(prepare(input.action, input, placer.encode).ok).toBe(true)
    return placing.readPlaced(placer.take()).printed
  }
  const before = found(open)
  for (const input of Object.values(bases)) found(input)
  expect(found(open)).toEqual(before)
  expect(prepare('session.open', { ...open, device: 1 as never }, placer.encode).ok).toBe(false)
  expect(() => placer.take()).toThrow('nothing was placed')
})

test('a memory that holds no such value is not read, whatever it holds', () => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 })
  const bytes = new Uint8Array(memory.buffer)
  const lift = new Lift(memory, 0)
  for (const address of [0, 8, 65_535, 65_536, -1, 2 ** 31])
    expect(lift.value(address)).toBe(UNREAD)
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 64, maxLength: 64 }),
      fc.integer({ min: 0, max: 9 }),
      (noise, type) => {
        // Words that are small enough to be addresses within it, so that some are followed.
        for (let at = 0; at < 64; at++) bytes[64 + at] = at % 4 < 1 ? (noise[at] ?? 0) : 0
        bytes[64] = type
        const found = lift.value(64)
        expect(['symbol', 'object', 'boolean', 'number', 'string']).toContain(typeof found)
      },
    ),
    { numRuns: 500 },
  )
})

const TABLE_AT = 64

/** Memory with a table of constants, as a compiler writes it. */
function tableOf(texts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const memory = new Uint8Array(4096)
  const view = new DataView(memory.buffer)
  let place = 2048
  for (const [at, text] of texts.entries()) {
    const words = [8, text.length, place]
    for (const [index, word] of words.entries())
      view.setUint32(TABLE_AT + 12 * at + 4 * index, word, true)
    memory.set(text, place)
    place += text.length + 1
  }
  return memory
}

/** The built-in module with another text of as many bytes for one of its constants. */
function replaced(constant: string, other: Uint8Array | string): Uint8Array<ArrayBuffer> {
  const wasm = Uint8Array.from(builtin.wasm)
  const bytes = Buffer.from(other)
  const at = Buffer.from(wasm.buffer).indexOf(`\0${constant}\0`)
  if (at < 0 || bytes.length !== constant.length) throw new Error(`no room in ${constant}`)
  wasm.set(bytes, at + 1)
  return wasm
}

describe("the module's own constants", () => {
  test('each is found under its text, and stands for it in records', () => {
    const { memory, shape } = whole.compiled.image
    const constants = shape?.constants ?? new Map<string, number>()
    expect(constants.size).toBeGreaterThan(200)
    for (const [text, at] of constants)
      expect(whole.placing.readPlaced({ value: at, end: whole.placing.ground.base })).toEqual({
        printed: text,
        lifted: text,
      })
    const keys = [...(shape?.records.get('.device')?.words ?? [])]
    expect(keys).toContain(constants.get('zone'))
    expect(findConstants(memory.slice(0, 60_000)).size).toBe(0)
  })

  test('a text that begins with a byte order mark is another text', async () => {
    // A constant of as many bytes, behind the word itself: met later, it would take its place.
    const marked = await waysOf(true, replaced('mutating', '\ufeffwrite'))
    const { shape } = marked.compiled.image
    const { base } = marked.placing.ground
    for (const text of ['write', '\ufeffwrite']) {
      const found = { value: shape?.constants.get(text) ?? 0, end: base }
      expect(marked.placing.readPlaced(found)).toEqual({ printed: text, lifted: text })
    }
    for (const request_id of ['\ufeffwrite', `\ufeff${'ä'.repeat(50)}`]) {
      const input = { ...bases['ot.verb'], request_id }
      const asked = { ...input, ot: { ...input.ot, op: 'write' as const } } as Input
      const { text, placed } = bothWays(marked, asked)
      expect(placed).toEqual(text)
      expect(placed).toMatchObject({ ot: { op: 'write' }, request_id })
    }
  })

  test('they are used over data whose printing grows the memory, too', async () => {
    const { data, wasm, vectors } = builtin
    const { site } = data as { site: { zones: { default: object } } }
    // Some 160 KB: more than the memory has left by then.
    const names = Array.from({ length: 250 }, (_, at) => [`zone-${at}`, site.zones.default])
    const zones = { ...site.zones, ...Object.fromEntries(names) }
    const dataText = JSON.stringify({ site: { ...site, zones } })
    expect(dataText.length).toBeGreaterThan(128 * 1024)
    const compiled = await CompiledPolicy.compile(wasm, dataText, ENTRYPOINTS, builtin.reads)
    expect(compiled.image.shape?.constants.size).toBeGreaterThan(200)
    expect(placesWell(compiled, builtin.reads, vectors)).toBe(true)
  })

  test('of two with one text the first stays', () => {
    const texts = Array.from({ length: 40 }, (_, at) => (at === 30 ? 'text3' : `text${at}`))
    const found = findConstants(tableOf(texts.map((text) => Buffer.from(text))))
    expect(found.size).toBe(39)
    expect(found.get('text3')).toBe(TABLE_AT + 3 * 12)
  })

  test('one that is no text is left out, and its module is looked at like any other', async () => {
    const bytes = Buffer.from('mut\xffting', 'latin1')
    const texts = Array.from({ length: 40 }, (_, at) => Buffer.from(`text${at}`))
    expect(findConstants(tableOf(texts.with(7, bytes))).size).toBe(39)
    const { compiled } = await waysOf(true, replaced('mutating', bytes))
    expect(compiled.image.shape?.constants.has('mutating')).toBe(false)
    expect(compiled.image.shape?.constants.has('write')).toBe(true)
  })

  test('a module in which one word is another is not placed in', () => {
    const { compiled } = whole
    const { shape } = compiled.image
    if (shape === undefined) throw new Error('no shape')
    const words = new Set(wordFields(inputSchema).flatMap(([, known]) => known))
    const kept = [...words].filter((word) => shape.constants.has(word))
    expect(kept.length).toBeGreaterThan(20)
    for (const word of kept) {
      const constants = new Map(shape.constants).set(word, shape.constants.get('msg') ?? 0)
      const image = { ...compiled.image, shape: { ...shape, constants } }
      expect(placesWell(CompiledPolicy.from(compiled.module, image), true, []), word).toBe(false)
    }
  })

  test('data that uses them is the data, to the last digit', () => {
    const constants = whole.compiled.image.shape?.constants ?? new Map<string, number>()
    const odd = fc.constantFrom('1.5', '1e3', '-0', '9007199254740993', '-7', '007'.slice(2), '10')
    const word = fc.oneof(fc.constantFrom(...constants.keys()), fc.string({ maxLength: 9 }))
    const { ground } = whole.placing
    const { buffer } = ground.memory
    const found = (text: string, shared: boolean): unknown => {
      const { value, end } = ground.parse(new TextEncoder().encode(text), ground.base)
      if (shared) useConstants(buffer, value, constants)
      return whole.placing.readPlaced({ value, end }).printed
    }
    fc.assert(
      fc.property(fc.dictionary(word, fc.array(word, { maxLength: 3 })), odd, (record, digits) => {
        const text = `{"n":[${digits},${digits}],"r":${JSON.stringify(record)}}`
        expect(found(text, true)).toEqual(found(text, false))
      }),
      { numRuns: 300 },
    )
  })

  test('what is no value, or never ends, is left by a throw', () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 }).buffer
    const words = new Int32Array(memory)
    // An array whose only element is the array itself.
    words.set([5, 32, 1, 1], 4)
    words.set([0, 16], 8)
    expect(() => useConstants(memory, 16, new Map())).toThrow(RangeError)
    expect(() => useConstants(memory, 70_000, new Map())).toThrow(RangeError)
  })
})

describe('a module of another shape gets its input as text', () => {
  const values = new Map<string, number>()
  /** Answers every word alike: nothing in it is where it should be. */
  const strange = (word: number): Shaping => ({
    parse: (text) => {
      values.set(text, 64)
      return 64
    },
    reserve: () => 128,
    word: () => word,
    set: () => undefined,
    bytes: () => new Uint8Array(0),
    constants: new Map(),
  })
  test.for([0, 1, 4, 6, 70_000, -1])('all words %i', (word) => {
    expect(findShape(strange(word), inputSchema, true)).toBeUndefined()
  })

  test('one whose keys are not found', () => {
    const { compiled } = narrow
    const { shape } = compiled.image
    if (shape === undefined) throw new Error('no shape')
    expect(placesWell(compiled, builtin.reads, builtin.vectors)).toBe(true)
    const root = shape.records.get('')
    if (root === undefined) throw new Error('no record')
    // Each bucket moved by one: the keys are all there, and none is where it is looked for.
    const words = Int32Array.from(root.words)
    const size = words[2] ?? 0
    words.set([words[3 + size] ?? 0, ...root.words.subarray(4, 3 + size)], 4)
    const relative = root.relative.map((word) =>
      word >= 4 && word < 4 + size ? 4 + ((word - 3) % size) : word,
    )
    const records = new Map(shape.records).set('', { ...root, words, relative })
    const moved = CompiledPolicy.from(compiled.module, {
      ...compiled.image,
      shape: { ...shape, records },
    })
    expect(placesWell(moved, builtin.reads, [])).toBe(false)
    expect(placesWell(compiled.withoutShape(), builtin.reads, [])).toBe(false)
  })

  test('reads within a dictionary, and none at all', async () => {
    for (const reads of [readsOf(['input.subject.claims.b']), readsOf([])]) {
      const ways = await waysOf(reads)
      expect(placesWell(ways.compiled, reads, [])).toBe(true)
      const input = { ...open, subject: { ...open.subject, claims: { a: 1, b: ['2', '3'] } } }
      const { text, placed } = bothWays(ways, input)
      expect(placed).toEqual(text)
    }
  })
})

/**
 * Before inputs are placed in a module's memory it has to show that it finds there just what was placed.
 * It lists the keys of an object by looking each of them up, so a key that is not found is not listed.
 */
import type { Bundle } from './bundle.ts'
import { Page } from './encode.ts'
import type { Encode } from './encode.ts'
import { encodeInput } from './input.ts'
import type { CompiledPolicy, PolicyInstance } from './module.ts'
import { Placer } from './place.ts'
import { POINTS } from './points.ts'
import type { Reads } from './reads.ts'
import { inputSchema, typesOf } from './schema.ts'
import type { Schema } from './schema.ts'

/** For strings of a form. */
const FORMED = ['192.0.2.7', 'a'.repeat(64), '/', 'GET', 'device:read']
const TEXTS = ['plain', '', 'ä€😀', 'a "quoted" \\ text\n', 'x'.repeat(200), '\ufeffplain']
const NUMBERS = [0, 7, 1795082400, 2 ** 53 - 1, -1, -(2 ** 40)]

type Vector = Bundle['vectors'][number]

interface Turn {
  /** Counts up, so that no two values of a sample are the same. */
  at: number
  /** Which of its words a field of few holds; the same throughout a sample. */
  readonly word: number
}

function wordsOf({ enum: words = [] }: Schema): string[] {
  return words.filter((word) => typeof word === 'string')
}

function stringOf(schema: Schema, turn: Turn): string {
  if (schema.enum !== undefined) {
    const words = wordsOf(schema)
    return words[turn.word % words.length] ?? ''
  }
  const text = TEXTS[turn.at++ % TEXTS.length] ?? ''
  const { minLength = 0, maxLength = Infinity, pattern } = schema
  if (pattern !== undefined) return FORMED.find((formed) => new RegExp(pattern).test(formed)) ?? ''
  return text.length >= minLength ? text.slice(0, maxLength) : 'x'.repeat(minLength)
}

function numberOf(schema: Schema, turn: Turn): number {
  const said = schema.const ?? schema.enum?.find((value) => typeof value === 'number')
  if (typeof said === 'number') return said
  const { minimum = -Infinity, maximum = Infinity } = schema
  const number = NUMBERS[turn.at++ % NUMBERS.length] ?? 0
  return Math.min(maximum, Math.max(minimum, number))
}

/** A value of a schema in which nothing that may be there is absent. */
function full(schema: Schema, turn: Turn): unknown {
  const types = typesOf(schema)
  if (types.includes('object')) {
    const parts = Object.entries(schema.properties ?? { one: schema.additionalProperties })
    return Object.fromEntries(
      parts.map(([name, part]) => [name, typeof part === 'object' ? full(part, turn) : null]),
    )
  }
  const { items, maxItems = Infinity } = schema
  if (types.includes('array') && items !== undefined)
    return Array.from({ length: Math.min(2, maxItems) }, () => full(items, turn))
  if (types.includes('string')) return stringOf(schema, turn)
  if (types.includes('integer') || types.includes('number')) return numberOf(schema, turn)
  return types.includes('boolean') ? turn.at++ % 2 === 0 : null
}

/** A value of a schema with as little in it as there may be. */
function bare(schema: Schema): unknown {
  const types = typesOf(schema)
  if (types.includes('null')) return null
  if (types.includes('array')) return []
  if (!types.includes('object')) return full(schema, { at: 0, word: 0 })
  const parts = Object.entries(schema.properties ?? {})
  return Object.fromEntries(parts.map(([name, part]) => [name, bare(part)]))
}

/** Whether two JSON values are the same, whatever the order of their keys. */
function same(one: unknown, other: unknown): boolean {
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null)
    return one === other
  const [left, right] = [Object.entries(one), new Map(Object.entries(other))]
  return (
    Array.isArray(one) === Array.isArray(other) &&
    left.length === right.size &&
    left.every(([name, part]) => right.has(name) && same(part, right.get(name)))
  )
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
/** As many as the longest list of words has, in a schema or below it. */
function mostWords(schema: Schema): number {
  const { properties = {}, items, additionalProperties: others } = schema
  const below = [...Object.values(properties), ...(items === undefined ? [] : [items])]
  if (typeof others === 'object') below.push(others)
  return Math.max(wordsOf(schema).length, ...below.map(mostWords))
}

/** Inputs that between them hold values of every form the schema admits, and in each field every word it may. */
export const SAMPLES: readonly unknown[] = Array.from(
  { length: 1 + Math.max(TEXTS.length, mostWords(inputSchema)) },
  (_, at) => at,
).map((at) => {
  const made = at === 0 ? bare(inputSchema) : full(inputSchema, { at, word: at })
  // Objects in the engine's plain form: others would teach it that any may come, and slow every decision.
  return JSON.parse(JSON.stringify(made)) as unknown
})

/** Whether the module finds what was placed, and what it finds is read as it would print it. */
function finds(sample: unknown, text: Encode, placer: Placer, instance: PolicyInstance): boolean {
  const [written, counted] = [new Page(), new Page()]
  const refused = text(sample, written)
  if (placer.encode(sample, counted) !== refused) return false
  if (refused !== undefined || written.at + written.unread !== counted.at) return false
  const wanted: unknown = JSON.parse(decoder.decode(written.bytes.subarray(0, written.at)))
  const { printed, lifted } = instance.readPlaced(placer.take())
  return same(wanted, printed) && same(wanted, lifted)
}

/** Whether both ways give one document, with all that the module makes of its own constants. */
function agrees(vector: Vector, text: Encode, placer: Placer, instance: PolicyInstance): boolean {
  const [written, counted] = [new Page(), new Page()]
  const refused = text(vector.input, written)
  if (placer.encode(vector.input, counted) !== refused) return false
  if (refused !== undefined) return true
  const { entrypoint } = POINTS[vector.point]
  const placed = instance.evaluatePlaced(entrypoint, placer.take())
  return same(placed, instance.evaluate(entrypoint, written.bytes.slice(0, written.at)))
}

/**
 * Whether a module finds in every sample what was placed, and decides every vector as it does on text;
 * false also where it has no shape at all, or fails.
 */
export function placesWell(
  compiled: CompiledPolicy,
  reads: Reads,
  vectors: readonly Vector[],
): boolean {
  const { shape } = compiled.image
  if (shape === undefined) return false
  const instance = compiled.instance()
  const placer = new Placer(inputSchema, reads, shape, instance.ground)
  const text = encodeInput(reads)
  try {
    return (
      SAMPLES.every((sample) => finds(sample, text, placer, instance)) &&
      vectors.every((vector) => agrees(vector, text, placer, instance))
    )
  } catch {
    return false
  }
}

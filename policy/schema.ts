/**
 * The part of JSON Schema that schema/*.json uses, compiled once into plain checks. The same files
 * type-check the Rego (`policy check`), so host and compiler agree on every name.
 */
import decisionJson from './schema/decision.json' with { type: 'json' }
import inputJson from './schema/input.json' with { type: 'json' }
import siteJson from './schema/site.json' with { type: 'json' }
import type { Point } from './envelope.ts'
import { POINTS, POINT_NAMES } from './points.ts'

type TypeName = 'object' | 'array' | 'string' | 'number' | 'integer' | 'boolean' | 'null'

/** The keywords understood; a schema with any other is refused when it is compiled. */
export interface Schema {
  readonly $schema?: string
  readonly title?: string
  readonly description?: string
  readonly type: TypeName | readonly TypeName[]
  readonly required?: readonly string[]
  readonly properties?: { readonly [name: string]: Schema }
  readonly additionalProperties?: boolean | Schema
  readonly propertyNames?: { readonly maxLength: number }
  readonly maxProperties?: number
  readonly items?: Schema
  readonly maxItems?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly enum?: ReadonlyArray<string | number | null>
  readonly const?: string | number
}

const KEYWORDS = new Set([
  '$schema',
  'title',
  'description',
  'type',
  'required',
  'properties',
  'additionalProperties',
  'propertyNames',
  'maxProperties',
  'items',
  'maxItems',
  'minLength',
  'maxLength',
  'pattern',
  'minimum',
  'maximum',
  'enum',
  'const',
])

/** Gives where a value breaks the schema and how (`device.state: not one of …`), or nothing. */
export type Check = (value: unknown, path: string) => string | undefined

export const inputSchema = inputJson as unknown as Schema
export const siteSchema = siteJson as unknown as Schema
export const decisionSchema = decisionJson as unknown as Schema

function typesOf(schema: Schema): readonly TypeName[] {
  return typeof schema.type === 'string' ? [schema.type] : schema.type
}

function stringCheck(schema: Schema): Check {
  const { minLength = 0, maxLength = Infinity } = schema
  const pattern = schema.pattern === undefined ? undefined : new RegExp(schema.pattern)
  const allowed = schema.enum === undefined ? undefined : new Set<unknown>(schema.enum)
  return (value, path) => {
    const text = value as string
    if (text.length > maxLength) return `${path}: longer than ${maxLength}`
    if (text.length < minLength) return `${path}: shorter than ${minLength}`
    if (allowed !== undefined && !allowed.has(text)) return `${path}: not one of the values known`
    if (pattern !== undefined && !pattern.test(text)) return `${path}: not in the form expected`
    return undefined
  }
}

function numberCheck(schema: Schema, integer: boolean): Check {
  const { minimum = -Infinity, maximum = Infinity } = schema
  const allowed = schema.enum === undefined ? undefined : new Set<unknown>(schema.enum)
  return (value, path) => {
    const number = value as number
    // Beyond 2^53 the module's numbers and ours are no longer the same ones.
    if (!Number.isFinite(number) || Math.abs(number) > Number.MAX_SAFE_INTEGER)
      return `${path}: not a safe number`
    if (integer && !Number.isInteger(number)) return `${path}: not an integer`
    if (number < minimum || number > maximum) return `${path}: out of range`
    if (allowed !== undefined && !allowed.has(number)) return `${path}: not one of the values known`
    if (schema.const !== undefined && number !== schema.const) return `${path}: not ${schema.const}`
    return undefined
  }
}

function arrayCheck(schema: Schema): Check {
  const { maxItems = Infinity } = schema
  const item = schema.items === undefined ? () => undefined : compile(schema.items)
  return (value, path) => {
    const list = value as readonly unknown[]
    if (list.length > maxItems) return `${path}: more than ${maxItems} items`
    for (let at = 0; at < list.length; at++) {
      const problem = item(list[at], path)
      if (problem !== undefined) return problem
    }
    return undefined
  }
}

function objectCheck(schema: Schema): Check {
  const required = schema.required ?? []
  const named = new Map(
    Object.entries(schema.properties ?? {}).map(([name, part]) => [name, compile(part)] as const),
  )
  const rest = schema.additionalProperties ?? true
  const other = typeof rest === 'boolean' ? undefined : compile(rest)
  const { maxProperties = Infinity } = schema
  const nameLength = schema.propertyNames?.maxLength ?? Infinity
  return (value, path) => {
    const object = value as Readonly<Record<string, unknown>>
    const prototype: unknown = Object.getPrototypeOf(object)
    if (prototype !== Object.prototype && prototype !== null) return `${path}: not a plain object`
    for (const name of required) {
      if (!Object.hasOwn(object, name)) return `${path}.${name}: absent`
    }
    const names = Object.keys(object)
    if (names.length > maxProperties) return `${path}: more than ${maxProperties} keys`
    for (const name of names) {
      const check = named.get(name) ?? other
      if (check === undefined) {
        if (rest === true) continue
        return `${path}: an unknown key`
      }
      if (name.length > nameLength) return `${path}: a key longer than ${nameLength}`
      const problem = check(object[name], path === '' ? name : `${path}.${name}`)
      if (problem !== undefined) return problem
    }
    return undefined
  }
}

function typeOf(value: unknown): TypeName | undefined {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  const type = typeof value
  if (type === 'object' || type === 'string' || type === 'number' || type === 'boolean') return type
  return undefined
}

/**
 * Compiles a schema.
 * Takes: a schema of the keywords above. Gives: a check. Errors: a plain Error for an unknown
 * keyword, so that a rule written into a schema is never silently ignored.
 */
export function compile(schema: Schema): Check {
  for (const keyword of Object.keys(schema)) {
    if (!KEYWORDS.has(keyword)) throw new Error(`schema keyword ${keyword} is not understood`)
  }
  const checks = new Map<TypeName, Check>()
  for (const type of typesOf(schema)) {
    if (type === 'integer' || type === 'number')
      checks.set('number', numberCheck(schema, type === 'integer'))
    else if (type === 'string') checks.set(type, stringCheck(schema))
    else if (type === 'array') checks.set(type, arrayCheck(schema))
    else if (type === 'object') checks.set(type, objectCheck(schema))
    else checks.set(type, () => undefined)
  }
  const wanted = typesOf(schema).join(' or ')
  return (value, path) => {
    const type = typeOf(value)
    const check = type === undefined ? undefined : checks.get(type)
    return check === undefined ? `${path}: not ${wanted}` : check(value, path)
  }
}

/**
 * Completes a partial value: absent keys become [] where the schema says list, the filled object
 * where it says object and never null, null elsewhere. Keys given are kept, unknown ones too (the check refuses them).
 */
export function fill(schema: Schema, value: unknown): unknown {
  const types = typesOf(schema)
  if (value === undefined) {
    if (schema.const !== undefined) return schema.const
    if (types.includes('null')) return null
    if (types.includes('array')) return []
    return types.includes('object') ? fill(schema, {}) : null
  }
  if (Array.isArray(value)) {
    const items = schema.items
    return items === undefined ? value : value.map((item: unknown) => fill(items, item ?? null))
  }
  if (typeof value !== 'object' || value === null || schema.properties === undefined) return value
  const given = value as Readonly<Record<string, unknown>>
  const full: Record<string, unknown> = { ...given }
  for (const [name, part] of Object.entries(schema.properties)) full[name] = fill(part, given[name])
  return full
}

/** The published input schema of each point: the envelope, with the parts that point cannot do without. */
export function pointSchemas(): Readonly<Record<Point, Schema>> {
  const schemas = POINT_NAMES.map((point) => {
    const properties: Record<string, Schema> = { ...inputSchema.properties }
    properties['action'] = { type: 'string', enum: [point] }
    for (const part of POINTS[point].needs) {
      const schema = properties[part]
      if (schema !== undefined) properties[part] = { ...schema, type: 'object' }
    }
    return [point, { ...inputSchema, title: `${inputSchema.title}: ${point}`, properties }] as const
  })
  return Object.fromEntries(schemas) as Record<Point, Schema>
}

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

/** Gives where a value breaks the schema and how (`.device.state: not one of …`), or nothing. */
export type Check = (value: unknown) => string | undefined

export const inputSchema = inputJson as unknown as Schema
export const siteSchema = siteJson as unknown as Schema
export const decisionSchema = decisionJson as unknown as Schema

/** The types a schema admits. */
export function typesOf(schema: Schema): readonly TypeName[] {
  return typeof schema.type === 'string' ? [schema.type] : schema.type
}

/** The check of a string. */
export function stringCheck(schema: Schema): Check {
  const { minLength = 0, maxLength = Infinity } = schema
  const pattern = schema.pattern === undefined ? undefined : new RegExp(schema.pattern)
  const allowed = schema.enum === undefined ? undefined : new Set<unknown>(schema.enum)
  return (value) => {
    const text = value as string
    if (text.length > maxLength) return `: longer than ${maxLength}`
    if (text.length < minLength) return `: shorter than ${minLength}`
    if (allowed !== undefined && !allowed.has(text)) return ': not one of the values known'
    if (pattern !== undefined && !pattern.test(text)) return ': not in the form expected'
    return undefined
  }
}

/** The check of a number. */
export function numberCheck(schema: Schema, integer: boolean): Check {
  const { minimum = -Infinity, maximum = Infinity } = schema
  const allowed = schema.enum === undefined ? undefined : new Set<unknown>(schema.enum)
  return (value) => {
    const number = value as number
    // Beyond 2^53 the module's numbers and ours are no longer the same ones.
    if (!Number.isFinite(number) || Math.abs(number) > Number.MAX_SAFE_INTEGER)
      return ': not a safe number'
    if (integer && !Number.isInteger(number)) return ': not an integer'
    if (number < minimum || number > maximum) return ': out of range'
    if (allowed !== undefined && !allowed.has(number)) return ': not one of the values known'
    if (schema.const !== undefined && number !== schema.const) return `: not ${schema.const}`
    return undefined
  }
}

function arrayCheck(schema: Schema): Check {
  const { maxItems = Infinity } = schema
  const item = schema.items === undefined ? () => undefined : compile(schema.items)
  return (value) => {
    const list = value as readonly unknown[]
    if (list.length > maxItems) return `: more than ${maxItems} items`
    for (let at = 0; at < list.length; at++) {
      const problem = item(list[at])
      if (problem !== undefined) return `.${at}${problem}`
    }
    return undefined
  }
}

/** What is said of a key that no schema names. */
export function unknownKey(name: string): string {
  return `: an unknown key ${JSON.stringify(name.slice(0, 40).toWellFormed())}`
}

/** Whether nothing but its own keys is in an object. */
export function isPlain(object: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(object)
  return prototype === Object.prototype || prototype === null
}

/** An object whose keys are all named and all required, as nearly every one of ours is. */
function recordCheck(names: readonly string[], checks: readonly Check[]): Check {
  const known = new Set(names)
  return (value) => {
    const object = value as Readonly<Record<string, unknown>>
    if (!isPlain(object)) return ': not a plain object'
    for (let at = 0; at < names.length; at++) {
      const name = names[at] ?? ''
      const part = object[name]
      if (part === undefined) return `.${name}: absent`
      const problem = checks[at]?.(part)
      if (problem !== undefined) return `.${name}${problem}`
    }
    if (Object.keys(object).length === names.length) return undefined
    const extra = Object.keys(object).find((name) => !known.has(name))
    return extra === undefined ? ': an inherited key' : unknownKey(extra)
  }
}

function objectCheck(schema: Schema): Check {
  const required = schema.required ?? []
  const properties = Object.entries(schema.properties ?? {})
  const checks = properties.map(([, part]) => compile(part))
  const names = properties.map(([name]) => name)
  const rest = schema.additionalProperties ?? true
  if (rest === false && required.length === names.length) return recordCheck(names, checks)
  const named = new Map(names.map((name, at) => [name, checks[at]] as const))
  const other = typeof rest === 'boolean' ? undefined : compile(rest)
  const { maxProperties = Infinity } = schema
  const nameLength = schema.propertyNames?.maxLength ?? Infinity
  return (value) => {
    const object = value as Readonly<Record<string, unknown>>
    if (!isPlain(object)) return ': not a plain object'
    const absent = required.find((name) => !Object.hasOwn(object, name))
    if (absent !== undefined) return `.${absent}: absent`
    const keys = Object.keys(object)
    if (keys.length > maxProperties) return `: more than ${maxProperties} keys`
    for (const name of keys) {
      if (name.length > nameLength) return `: a key longer than ${nameLength}`
      const check = named.get(name) ?? other
      if (check === undefined && rest !== true) return unknownKey(name)
      const problem = check?.(object[name])
      if (problem !== undefined) return `.${name}${problem}`
    }
    return undefined
  }
}

const accept: Check = () => undefined

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
    else checks.set(type, accept)
  }
  const wanted = typesOf(schema).join(' or ')
  const { string, number, object, array } = Object.fromEntries(checks)
  const nothing = checks.get('null')
  const flag = checks.get('boolean')
  return (value) => {
    let check: Check | undefined
    if (value === null) check = nothing
    else if (typeof value === 'string') check = string
    else if (typeof value === 'number') check = number
    else if (typeof value === 'boolean') check = flag
    else if (Array.isArray(value)) check = array
    else if (typeof value === 'object') check = object
    return check === undefined ? `: not ${wanted}` : check(value)
  }
}

/** Completes a partial value. */
export type Fill = (value: unknown) => unknown

/**
 * Compiles what completes partial values: absent keys become [] where the schema says list, the filled
 * object where it says object and never null, null elsewhere. Keys given are kept, unknown ones too (the
 * check refuses them); those known come first, in the order of the schema, so that objects are read alike.
 */
export function fillOf(schema: Schema): Fill {
  const types = typesOf(schema)
  const item = schema.items === undefined ? undefined : fillOf(schema.items)
  const parts = Object.entries(schema.properties ?? {}).map(
    ([name, part]) => [name, fillOf(part)] as const,
  )
  const known = new Set(parts.map(([name]) => name))
  const record = (given: Readonly<Record<string, unknown>>): Record<string, unknown> => {
    const full: Record<string, unknown> = {}
    for (const [name, part] of parts) full[name] = part(given[name])
    const unknown = Object.keys(given).filter((name) => !known.has(name))
    if (unknown.length === 0) return full
    return { ...full, ...Object.fromEntries(unknown.map((name) => [name, given[name]])) }
  }
  const absent = (): unknown => {
    if (schema.const !== undefined) return schema.const
    if (types.includes('null')) return null
    if (types.includes('array')) return []
    if (!types.includes('object')) return null
    return schema.properties === undefined ? {} : record({})
  }
  const nothing = types.includes('null') && schema.const === undefined
  return (value) => {
    if (value === undefined) return nothing ? null : absent()
    if (Array.isArray(value))
      return item === undefined ? value : value.map((one: unknown) => item(one ?? null))
    if (typeof value !== 'object' || value === null || schema.properties === undefined) return value
    return record(value as Readonly<Record<string, unknown>>)
  }
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

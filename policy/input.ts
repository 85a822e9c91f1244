/** Before Rego sees anything: normalise, bound, validate. Over a limit is a refusal, never a truncation. */
import { encodeOf, MAX_INPUT_BYTES, Page } from './encode.ts'
import type { Encode } from './encode.ts'
import type { Input, Partially, Point } from './envelope.ts'
import { missingPart, POINTS } from './points.ts'
import type { Reads } from './reads.ts'
import { fillOf, inputSchema } from './schema.ts'

const completed = fillOf(inputSchema)

/** The envelope of a point with everything unknown: null, [] and nothing else. */
export function emptyInput(point: Point): Input {
  return inputFor(point, {})
}

/**
 * Builds an envelope from what the caller knows.
 * Takes: any part of the envelope, to any depth; lists are whole. Gives: a complete envelope with
 * null and [] for the rest. It does not validate: `decide` does, and denies `input.invalid`.
 */
export function inputFor(point: Point, known: Partially<Input>): Input {
  return completed({ ...known, action: point }) as Input
}

/**
 * The barest question of a point that still reaches the rules: every part it insists on is there, and everything
 * in it is unknown. Takes the point and a time in epoch seconds. Rules answer it with denials.
 */
export function bareInput(point: Point, at: number): Input {
  const parts = Object.fromEntries(POINTS[point].needs.map((part) => [part, {}]))
  return inputFor(point, { time: { epoch_s: at }, ...parts } as Partially<Input>)
}

const V4 = /^(?:\d{1,3}\.){3}\d{1,3}$/

function canonicalV4(text: string): string | null {
  const parts = text.split('.').map(Number)
  return parts.every((part) => part <= 255) ? parts.join('.') : null
}

function words(half: string): number[] | null {
  if (half === '') return []
  const found: number[] = []
  for (const word of half.split(':')) {
    if (!/^[0-9a-f]{1,4}$/.test(word)) return null
    found.push(Number.parseInt(word, 16))
  }
  return found
}

/** An IPv4 tail (RFC 4291 2.2.3) as two words of hexadecimal; text without one stays as it is. */
function withoutV4Tail(text: string): string | null {
  const [, head, tail] = /^(.*:)((?:\d{1,3}\.){3}\d{1,3})$/.exec(text) ?? []
  if (head === undefined || tail === undefined) return text
  const v4 = canonicalV4(tail)
  if (v4 === null) return null
  const [a = 0, b = 0, c = 0, d = 0] = v4.split('.').map(Number)
  return `${head}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
}

/** Eight 16-bit words of an IPv6 address without zone, or null. */
function parseV6(text: string): number[] | null {
  const halves = withoutV4Tail(text)?.split('::')
  if (halves === undefined || halves.length > 2) return null
  const shortened = halves.length === 2
  const head = words(halves[0] ?? '')
  const rest = words(halves[1] ?? '')
  if (head === null || rest === null) return null
  const gap = 8 - head.length - rest.length
  if (shortened ? gap < 1 : gap !== 0) return null
  return [...head, ...Array.from({ length: gap }, () => 0), ...rest]
}

/** RFC 5952: lower case, no leading zeros, the longest run of zeros (two at least) shortened once. */
function printV6(parts: readonly number[]): string {
  let best = { at: -1, length: 1 }
  for (let at = 0; at < 8; at++) {
    let length = 0
    while (at + length < 8 && parts[at + length] === 0) length++
    if (length > best.length) best = { at, length }
  }
  const hex = parts.map((part) => part.toString(16))
  if (best.at < 0) return hex.join(':')
  return `${hex.slice(0, best.at).join(':')}::${hex.slice(best.at + best.length).join(':')}`
}

/**
 * An address in the one form policies see.
 * Takes: an IPv4 or IPv6 address, with port, brackets or zone id if need be. Gives: dotted IPv4
 * (also for ::ffff:a.b.c.d, which engines treat differently) or RFC 5952 IPv6; null if it is neither.
 */
export function canonicalIp(text: string): string | null {
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(text)?.[1]
  const bare = (bracketed ?? text).replace(/%.*$/s, '').toLowerCase()
  const v4 = /^((?:\d{1,3}\.){3}\d{1,3})(?::\d+)?$/.exec(bare)?.[1]
  if (v4 !== undefined) return canonicalV4(v4)
  const parts = parseV6(bare)
  if (parts === null) return null
  const mapped = parts.slice(0, 5).every((part) => part === 0) && parts[5] === 0xffff
  if (!mapped) return printV6(parts)
  const [high = 0, low = 0] = parts.slice(6)
  return [high >> 8, high & 255, low >> 8, low & 255].join('.')
}

/**
 * The web request as policies see it.
 * Takes: method, Host header, origin-form target. Gives: upper-case method, lower-case host without
 * port, path decoded once without dot segments and double slashes. Gives null for what two readers
 * could read differently: an encoded slash, backslash or NUL, a broken escape, a target that is not a path.
 */
export function httpFacts(
  method: string,
  host: string,
  target: string,
): { method: string; host: string; path: string; segments: string[] } | null {
  const raw = target.replace(/[?#].*$/s, '')
  if (!raw.startsWith('/') || /%(?:2f|5c|00)|\\|\0/i.test(raw)) return null
  let decoded: string
  try {
    decoded = decodeURIComponent(raw)
  } catch {
    return null
  }
  const segments: string[] = []
  for (const segment of decoded.split('/')) {
    if (segment === '..') segments.pop()
    else if (segment !== '' && segment !== '.') segments.push(segment)
  }
  const name = host.replace(/:\d+$/, '').toLowerCase()
  return { method: method.toUpperCase(), host: name, path: `/${segments.join('/')}`, segments }
}

// RFC 8176 values, and what providers send beside them.
const METHODS: Readonly<Record<string, string>> = {
  pwd: 'password',
  password: 'password',
  otp: 'totp',
  totp: 'totp',
  hwk: 'webauthn',
  swk: 'webauthn',
  fido: 'webauthn',
  webauthn: 'webauthn',
  sc: 'piv',
  piv: 'piv',
  x509: 'piv',
}

/** `amr` of an ID token as `authn.methods`; values without a meaning here are left out, never guessed. */
export function authnMethods(amr: readonly string[]): string[] {
  const known = amr.map((value) => (Object.hasOwn(METHODS, value) ? METHODS[value] : undefined))
  return [...new Set(known.filter((method) => method !== undefined))].toSorted()
}

const OCTET = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)'
const PLAIN_V4 = new RegExp(`^${OCTET}\\.${OCTET}\\.${OCTET}\\.${OCTET}$`)
const PLAIN_V6 = /^(?:[1-9a-f][0-9a-f]{0,3}:){7}[1-9a-f][0-9a-f]{0,3}$/

function normalIp(ip: unknown): unknown {
  if (typeof ip !== 'string' || PLAIN_V4.test(ip) || PLAIN_V6.test(ip)) return ip
  // What is no address stays as it is, and the schema or the rule's network refuses it.
  return V4.test(ip) || ip.length <= 64 ? (canonicalIp(ip) ?? 'invalid') : ip
}

function normalise(input: Input): Input {
  let normal = input
  const ip = normalIp(input.client?.ip)
  if (input.client !== null && ip !== input.client.ip)
    normal = { ...normal, client: { ...input.client, ip: ip as string } }
  const peer = normalIp(input.tunnel?.peer_ip)
  if (input.tunnel !== null && peer !== input.tunnel.peer_ip)
    normal = { ...normal, tunnel: { ...input.tunnel, peer_ip: peer as string } }
  return normal
}

/** Every string well-formed (a lone surrogate makes the module throw); the rest as it is. */
function wellFormed(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed()
  if (Array.isArray(value)) return value.map(wellFormed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, part]) => [name.toWellFormed(), wellFormed(part)]),
  )
}

export type Prepared =
  | { readonly ok: true; readonly bytes: Uint8Array<ArrayBuffer>; readonly input: Input }
  | { readonly ok: false; readonly at: string }

function pathsAgree(input: Input): boolean {
  const path = input.http?.path ?? null
  return path === null || !/\/\/|\/\.{1,2}(?:\/|$)/.test(path)
}

/** Compiles `prepare` for a policy that reads these parts of the input. */
export function encodeInput(reads: Reads): Encode {
  return encodeOf(inputSchema, reads)
}

// Decisions are synchronous, one after the other: one page serves them all.
const page = new Page()

/**
 * Makes an input ready for the module.
 * Takes: the point, the input, how it is encoded (`encodeInput`). Gives: its JSON as UTF-8 (at most
 * MAX_INPUT_BYTES), good until the next call, and the normalised input; or where it is wrong.
 * May throw on getters and the like: the engine turns that into a denial.
 */
export function prepare(point: Point, given: Input, encode: Encode): Prepared {
  if (typeof given !== 'object' || given === null) return { ok: false, at: 'not an object' }
  const input = normalise(given)
  page.at = 0
  page.unread = 0
  page.repaired = false
  const problem = encode(input, page)?.replace(/^[.:] ?/, '') ?? disagreement(point, input)
  if (problem !== undefined) return { ok: false, at: problem }
  if (page.at + page.unread > MAX_INPUT_BYTES)
    return { ok: false, at: `longer than ${MAX_INPUT_BYTES} bytes` }
  const bytes = page.bytes.subarray(0, page.at)
  return { ok: true, bytes, input: page.repaired ? (wellFormed(input) as Input) : input }
}

function disagreement(point: Point, input: Input): string | undefined {
  if (input.action !== point) return 'action: not the point asked'
  const missing = missingPart(point, input)
  if (missing !== undefined) return `${missing}: absent at this point`
  return pathsAgree(input) ? undefined : 'http.path: not normalised'
}

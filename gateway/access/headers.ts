/** What a forwarder may pass on, both ways (RFC 9110, section 7.6.1). Pure. */
import { APP_COOKIE, takeCookie } from './apps.ts'

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])
/** Never towards the device: the body is framed anew, and nobody waits for a 100 that may not come. */
const OURS = new Set([
  'expect',
  'content-length',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'forwarded',
])

/** Name and value in turn, as they stood on the wire. */
function* pairs(raw: readonly string[]): Iterable<readonly [string, string]> {
  for (let at = 0; at + 1 < raw.length; at += 2) yield [raw[at] ?? '', raw[at + 1] ?? '']
}

/** The header names that a Connection header declares to be of this hop only. */
function declared(raw: readonly string[]): Set<string> {
  const names = new Set<string>()
  for (const [name, value] of pairs(raw))
    if (name.toLowerCase() === 'connection')
      for (const part of value.split(',')) names.add(part.trim().toLowerCase())
  // Naming these would drop what the two ends need (and is how a hop is tricked into dropping them).
  for (const kept of ['host', 'cookie', 'content-length', 'content-type', 'authorization'])
    names.delete(kept)
  return names
}

/**
 * Request headers for the device: raw names and values in order, without hop-by-hop ones, without
 * our own cookie. `contentLength` is what Node parsed, null where the body is chunked or absent.
 */
export function requestHeaders(raw: readonly string[], contentLength: string | null): string[] {
  const dropped = declared(raw)
  const out: string[] = []
  for (const [name, value] of pairs(raw)) {
    const lower = name.toLowerCase()
    if (HOP_BY_HOP.has(lower) || OURS.has(lower) || dropped.has(lower)) continue
    if (lower === 'cookie') {
      const { rest } = takeCookie(value, APP_COOKIE)
      if (rest !== '') out.push(name, rest)
    } else out.push(name, value)
  }
  if (contentLength !== null) out.push('content-length', contentLength)
  return out
}

/** However it is spelt: browsers trim names, and read a cookie without one as the name in its value. */
function namesOurs(cookie: string): boolean {
  const [pair = ''] = cookie.split(';', 1)
  return pair.toLowerCase().includes(APP_COOKIE.toLowerCase())
}

/** Response headers for the browser: cookies lose their Domain, so that no app reaches its neighbours. */
export function responseHeaders(raw: readonly string[]): string[] {
  const dropped = declared(raw)
  const out: string[] = []
  for (const [name, value] of pairs(raw)) {
    const lower = name.toLowerCase()
    if (HOP_BY_HOP.has(lower) || dropped.has(lower)) continue
    if (lower !== 'set-cookie') out.push(name, value)
    else if (!namesOurs(value))
      out.push(
        name,
        value
          .split(';')
          .filter((part) => !/^\s*domain\s*(=|$)/i.test(part))
          .join(';'),
      )
  }
  return out
}

/** A posted form: bounded, urlencoded, each field once, and of the page that it says it is of. */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

const LIMIT = 8_192

/** The fields, or undefined for anything that is not such a form of at most 8 KiB. */
export async function readForm(
  request: IncomingMessage,
): Promise<ReadonlyMap<string, string> | undefined> {
  const type = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase()
  if (type !== 'application/x-www-form-urlencoded') return undefined
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    if (!Buffer.isBuffer(chunk)) return undefined
    length += chunk.length
    if (length > LIMIT) return undefined
    chunks.push(chunk)
  }
  const fields = new Map<string, string>()
  for (const [name, value] of new URLSearchParams(Buffer.concat(chunks).toString('utf8'))) {
    if (fields.has(name)) return undefined
    fields.set(name, value)
  }
  return fields
}

export interface FormKey {
  /** Signs the hidden field of every form. */
  readonly formKey: string
}

/** Bound to one purpose, so that a form of one page cannot be sent as another's. */
export function token({ formKey }: FormKey, purpose: string): string {
  return createHmac('sha256', formKey).update(`form:${purpose}`).digest('base64url')
}

export function isToken(options: FormKey, purpose: string, given: string): boolean {
  const expected = Buffer.from(token(options, purpose))
  const actual = Buffer.from(given)
  return actual.length === expected.length && timingSafeEqual(actual, expected)
}

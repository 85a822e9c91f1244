/** JSON between agent and gateway: bytes in, a record or nothing out. */

const decoder = new TextDecoder('utf-8', { fatal: true })
const encoder = new TextEncoder()

export type JsonRecord = Readonly<Record<string, unknown>>

/** The object in `bytes`; undefined when it is not UTF-8, not JSON, or not an object. */
export function readRecord(bytes: Uint8Array): JsonRecord | undefined {
  try {
    const value: unknown = JSON.parse(decoder.decode(bytes))
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as JsonRecord)
      : undefined
  } catch {
    return undefined
  }
}

export function writeRecord(value: JsonRecord): Uint8Array {
  return encoder.encode(JSON.stringify(value))
}

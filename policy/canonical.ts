/**
 * JSON with sorted keys and no spaces, as OPA hashes data.json and .manifest inside a bundle. Only
 * what Go and Node print alike is accepted: safe integers, ASCII keys, no control characters, no
 * U+2028 and U+2029. Everything else is refused rather than hashed two ways.
 */
import { PolicyError } from './errors.ts'

const MAX_DEPTH = 32
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const UNEQUAL = /[\u0000-\u001f\u007f\u2028\u2029]/
const ASCII = /^[\u0020-\u007e]*$/

/** The canonical text of a JSON value. Errors: bundle.json. */
export function canonicalJson(value: unknown, depth = 0): string {
  if (depth > MAX_DEPTH) throw new PolicyError('bundle.json', 'nested too deeply')
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'number') return integer(value)
  if (typeof value === 'string') return text(value)
  if (Array.isArray(value)) {
    return `[${value.map((item) => canonicalJson(item, depth + 1)).join(',')}]`
  }
  if (typeof value !== 'object') throw new PolicyError('bundle.json', 'not a JSON value')
  const object = value as Readonly<Record<string, unknown>>
  const parts = Object.keys(object)
    .toSorted()
    .map((name) => {
      if (!ASCII.test(name)) throw new PolicyError('bundle.json', 'a key beyond ASCII')
      return `${JSON.stringify(name)}:${canonicalJson(object[name], depth + 1)}`
    })
  return `{${parts.join(',')}}`
}

function integer(value: number): string {
  if (!Number.isSafeInteger(value) || Object.is(value, -0))
    throw new PolicyError('bundle.json', 'a number that is not a safe integer')
  return String(value)
}

function text(value: string): string {
  if (UNEQUAL.test(value) || !value.isWellFormed())
    throw new PolicyError('bundle.json', 'a string with characters that are printed in two ways')
  return JSON.stringify(value)
}

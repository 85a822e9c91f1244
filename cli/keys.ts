/** Verifier keys of a log, as people give them. */
import { readText } from './input.ts'

/** A vkey is `name+hash+base64`; anything else is the name of a file. */
export function readKeys(text: string): string[] {
  if (/^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+$/.test(text)) return [text]
  return readText(text, 'verifier key')
    .split('\n')
    .map((row) => row.trim())
    .filter((row) => row !== '' && !row.startsWith('#'))
}

/**
 * Cosignatures (c2sp.org/tlog-cosignature): what a witness says of a head, and who said it. A witness is its name;
 * it has said something when every key it is known by has signed.
 */
import { headText } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { parseNote, secondsOf, signLine, verifyLine } from './note.ts'
import type { NoteSigner, SignatureLine, SignedHead, Verifier } from './note.ts'

/** One witness's word on one head. */
export interface Cosigned {
  /** The witness's name. */
  readonly name: string
  readonly size: number
  /** Root, 64 hex digits. */
  readonly root: string
  /** When it signed, by its clock: seconds since the epoch; the earliest of its signatures. */
  readonly at: number
  /** Its signature lines, as they stand in the note. */
  readonly lines: string
}

function headOf({ origin, size, root }: Checkpoint): SignedHead {
  return { origin, size, root: Buffer.from(root, 'hex') }
}

/** The signature lines of a witness under `checkpoint`, one per key, dated `nowMs`. */
export function cosign(
  checkpoint: Checkpoint,
  signers: readonly NoteSigner[],
  nowMs: number,
): string {
  const head = headOf(checkpoint)
  const text = headText(head)
  const seconds = Math.max(0, Math.floor(nowMs / 1000))
  return signers.map((signer) => signLine(signer, text, head, seconds)).join('')
}

/** The keys of each witness, by name. */
export function byName(witnesses: readonly Verifier[]): Map<string, Verifier[]> {
  const named = new Map<string, Verifier[]>()
  for (const key of witnesses) named.set(key.name, [...(named.get(key.name) ?? []), key])
  return named
}

/**
 * Who of `witnesses` signed this head: each name once, and only where every key known for it has one signature that
 * holds. Lines of others are ignored, a line of a known key that does not hold is none. Errors: note.invalid.
 */
export function cosignedBy(checkpoint: Checkpoint, witnesses: readonly Verifier[]): Cosigned[] {
  const { text, lines } = parseNote(checkpoint.note)
  const head = headOf(checkpoint)
  const found: Cosigned[] = []
  for (const [name, keys] of byName(witnesses)) {
    const held = keys.map((key) => lines.find((line) => verifyLine(key, line, text, head)))
    const signed = held.filter((line) => line !== undefined)
    if (signed.length !== keys.length) continue
    const at = Math.min(...signed.map((line) => secondsOf(line) ?? 0))
    const { size, root } = checkpoint
    found.push({ name, size, root, at, lines: signed.map(lineText).join('') })
  }
  return found
}

function lineText({ name, id, signature }: SignatureLine): string {
  const bytes = Buffer.concat([Buffer.from(id, 'hex'), signature])
  return `\u2014 ${name} ${bytes.toString('base64')}\n`
}

/** The note with more signature lines under it; one that stands there already is not repeated. */
export function withLines(note: string, lines: string): string {
  const fresh = lines
    .split(/(?<=\n)/)
    .filter((line) => line !== '' && !note.includes(line))
    .join('')
  return `${note}${fresh}`
}

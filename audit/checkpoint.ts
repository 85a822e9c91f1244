/** The signed head of the tree: a note of three lines, no extension (c2sp.org/tlog-checkpoint). */
import { AuditError } from './errors.ts'
import { fromBase64, parseNote, signLine, verifyLine } from './note.ts'
import type { NoteSigner, SignedHead, Verifier } from './note.ts'

export interface Checkpoint {
  readonly origin: string
  readonly size: number
  /** Root, 64 hex digits. */
  readonly root: string
  /** The signed note, as published. */
  readonly note: string
}

/** A note is at most this long; ours is about 3.6 KB, witnesses add to it. */
export const noteLimit = 64 * 1024

/** The three lines of a head, as they are signed. */
export function headText(head: SignedHead): string {
  return `${head.origin}\n${head.size}\n${Buffer.from(head.root).toString('base64')}\n`
}

/** Signs a head with every signer, Ed25519 first. `nowMs` dates the ML-DSA signature. */
export function signCheckpoint(
  head: SignedHead,
  signers: readonly NoteSigner[],
  nowMs: number,
): Checkpoint {
  const text = headText(head)
  const seconds = Math.max(0, Math.floor(nowMs / 1000))
  const lines = signers.map((signer) => signLine(signer, text, head, seconds))
  return {
    origin: head.origin,
    size: head.size,
    root: Buffer.from(head.root).toString('hex'),
    note: `${text}\n${lines.join('')}`,
  }
}

/** Reads a checkpoint without trusting it. Errors: note.invalid. */
export function parseCheckpoint(note: string): Checkpoint {
  if (note.length > noteLimit) throw new AuditError('note.invalid', 'the note is too long')
  const { text } = parseNote(note)
  const [origin = '', size = '', root64 = '', end, ...extensions] = text.split('\n')
  const root = fromBase64(root64)
  const number = Number(size)
  if (origin === '' || end !== '' || extensions.length > 0)
    throw new AuditError('note.invalid', 'a checkpoint is origin, size and root, nothing else')
  if (!/^(0|[1-9]\d{0,15})$/.test(size) || !Number.isSafeInteger(number))
    throw new AuditError('note.invalid', 'the size is not a number')
  if (root === null || root.length !== 32)
    throw new AuditError('note.invalid', 'the root is not 32 bytes of base64')
  return { origin, size: number, root: Buffer.from(root).toString('hex'), note }
}

/**
 * Reads a checkpoint and demands a valid signature of every verifier given; lines of others are ignored.
 * Errors: note.invalid, note.signature.
 */
export function openCheckpoint(note: string, verifiers: readonly Verifier[]): Checkpoint {
  const checkpoint = parseCheckpoint(note)
  const { text, lines } = parseNote(note)
  const head = { ...checkpoint, root: Buffer.from(checkpoint.root, 'hex') }
  if (verifiers.length === 0) throw new AuditError('note.signature', 'no key to check it with')
  for (const verifier of verifiers) {
    const own = lines.filter((line) => line.name === verifier.name && line.id === verifier.id)
    if (own.length !== 1)
      throw new AuditError(
        'note.signature',
        `${own.length} signatures of key ${verifier.id}, not one`,
      )
    if (!own.every((line) => verifyLine(verifier, line, text, head)))
      throw new AuditError('note.signature', `the signature of key ${verifier.id} does not hold`)
  }
  return checkpoint
}

/** `<size>-<16 hex of root>`: how an exported event names the checkpoint that covers it. */
export function shortName(checkpoint: { readonly size: number; readonly root: string }): string {
  return `${checkpoint.size}-${checkpoint.root.slice(0, 16)}`
}

/**
 * The notes of a checkpoints.log: each is followed by one blank line. Gives for each its offset, or where and why
 * reading stopped.
 */
export function* splitNotes(
  bytes: Buffer,
  from = 0,
): Generator<
  { offset: number; end: number; checkpoint: Checkpoint } | { offset: number; what: string }
> {
  let offset = from
  while (offset < bytes.length) {
    // text LF LF signatures LF LF: the second blank line ends the note.
    const middle = bytes.indexOf('\n\n', offset)
    const last = middle === -1 ? -1 : bytes.indexOf('\n\n', middle + 2)
    if (last === -1 || last - offset > noteLimit) {
      yield { offset, what: 'cut short' }
      return
    }
    try {
      // Latin-1 garbage would turn into U+FFFD and fail the signature; length tells it apart already here.
      const note = bytes.toString('utf8', offset, last + 1)
      yield { offset, end: last + 2, checkpoint: parseCheckpoint(note) }
    } catch (error) {
      yield { offset, what: error instanceof Error ? error.message : String(error) }
      return
    }
    offset = last + 2
  }
}

/** The notes of a checkpoints.log of any length, a piece at a time: it is longer than what fits into memory. */
import * as fs from 'node:fs'
import { noteLimit, splitNotes, type Checkpoint } from './checkpoint.ts'

const windowBytes = 256 * 1024

/**
 * Each note with its place, in order, to `end` (default: where the file ends now); or where and why there is none. A file
 * that ends before `end`, because a shorter one took its place meanwhile, is cut short there.
 */
export function* walkNotes(
  path: string,
  end = fs.statSync(path).size,
): Generator<
  { offset: number; end: number; checkpoint: Checkpoint } | { offset: number; what: string }
> {
  const fd = fs.openSync(path, 'r')
  try {
    const window = Buffer.allocUnsafe(Math.max(windowBytes, 2 * noteLimit))
    for (let base = 0; base < end;) {
      const length = Math.min(window.length, end - base)
      const bytes = window.subarray(0, fs.readSync(fd, window, 0, length, base))
      let next = base
      for (const found of splitNotes(bytes)) {
        // The note may go on behind the window: it is looked at again as the first of the next.
        if ('what' in found && found.offset > 0 && base + bytes.length < end) break
        yield {
          ...found,
          offset: base + found.offset,
          ...('end' in found ? { end: base + found.end } : {}),
        }
        if ('what' in found) return
        next = base + found.end
      }
      if (bytes.length === 0) {
        yield { offset: base, what: 'cut short' }
        return
      }
      base = next
    }
  } finally {
    fs.closeSync(fd)
  }
}

/** Files that are whole or absent, whenever the power goes, with an agent's errors. */
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { replaceFile, syncDirectory } from '#boot'
import { AgentError, messageOf, systemCode } from './errors.ts'

/**
 * Replaces `path` by `data`. When it returns, the new content survives a power cut.
 * Throws AgentError `data.unwritable`.
 */
export function writeDurably(path: string, data: string | Uint8Array, mode = 0o644): void {
  try {
    replaceFile(path, data, mode)
  } catch (error) {
    throw unwritable(path, error)
  }
}

/**
 * Removes the file `path`; when it returns, a power cut does not bring it back. Gives whether there was one.
 * Throws AgentError `data.unwritable`.
 */
export function removeDurably(path: string): boolean {
  try {
    rmSync(path)
    syncDirectory(dirname(path))
    return true
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false
    throw unwritable(path, error)
  }
}

/** Makes `path` (0700) and its parents, durable. Throws AgentError `data.unwritable`. */
export function makeDirectory(path: string): void {
  try {
    const first = mkdirSync(path, { recursive: true, mode: 0o700 })
    if (first === undefined) return
    for (let made = path; made.length >= first.length; made = dirname(made))
      syncDirectory(dirname(made))
  } catch (error) {
    throw unwritable(path, error)
  }
}

/** The text of a file, or undefined when there is none. Other failures are thrown as they are. */
export function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function unwritable(path: string, cause: unknown): AgentError {
  return new AgentError(
    'data.unwritable',
    `${path} could not be written: ${messageOf(cause)}.`,
    'Give the agent a data directory it may write to (--data), on a disk with room.',
    { cause },
  )
}

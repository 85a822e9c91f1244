/** Which keys an update must be signed with, as the owner of the device says on the device: no gateway has a say. */
import { statSync } from 'node:fs'
import { MOST_KEYS, Shelf, type BootState } from '#boot'
import { readUpdateKey, type UpdateKey } from '#update'
import { AgentError, messageOf } from '../errors.ts'
import { VERSION } from '../version.ts'

function keysOf(words: readonly string[]): readonly UpdateKey[] {
  const keys = [...new Set(words)].map((word) => {
    const key = readUpdateKey(word)
    if (key !== undefined) return key
    throw new AgentError(
      'update.keys',
      `${JSON.stringify(word.slice(0, 80))} is no key of updates.`,
      'Write it as `sallyport rollout keygen` printed it: ed25519: and 43 characters.',
    )
  })
  if (keys.length <= MOST_KEYS) return keys
  throw new AgentError('update.keys', `More than ${MOST_KEYS} keys of updates.`, 'Name fewer.')
}

/**
 * Pins the keys of these words, durably, as the user that the data directory belongs to. The same ones again change
 * nothing. Throws AgentError `update.keys` for what is no key, `update.pinned` where others are pinned, `data.unwritable`.
 */
export function pinUpdateKeys(dataDir: string, words: readonly string[]): readonly UpdateKey[] {
  const keys = keysOf(words)
  const shelf = new Shelf(dataDir)
  written(dataDir, () => {
    const held = shelf.keys()
    if (isSame(held, keys)) return
    if (held.length > 0) throw otherPinned(held)
    shelf.pin(keys)
  })
  return keys
}

function otherPinned(held: readonly UpdateKey[]): AgentError {
  return new AgentError(
    'update.pinned',
    `Other keys of updates are pinned here: ${held.map(({ word }) => word).join(', ')}.`,
    'If these are to count instead: `sallyport agent update unpin`, then pin them.',
  )
}

/** This device takes no update any more, and starts the installed agent. Throws AgentError `data.unwritable`. */
export function unpinUpdateKeys(dataDir: string): void {
  written(dataDir, () => new Shelf(dataDir).pin([]))
}

/** What a device remembers of updates. Throws AgentError `data.unreadable`. */
export function readUpdates(dataDir: string): {
  readonly keys: readonly UpdateKey[]
  readonly state: BootState
} {
  const shelf = new Shelf(dataDir)
  try {
    return { keys: shelf.keys(), state: shelf.state(VERSION) }
  } catch (error) {
    throw new AgentError(
      'data.unreadable',
      `${dataDir} could not be read: ${messageOf(error)}.`,
      'Run this as the user of the agent, or as root.',
      { cause: error },
    )
  }
}

function isSame(one: readonly UpdateKey[], other: readonly UpdateKey[]): boolean {
  const words = (keys: readonly UpdateKey[]) => keys.map(({ word }) => word).sort()
  return words(one).join(' ') === words(other).join(' ')
}

function written(dataDir: string, work: () => void): void {
  try {
    asOwner(dataDir, work)
  } catch (error) {
    if (error instanceof AgentError) throw error
    throw new AgentError(
      'data.unwritable',
      `${dataDir} could not be written: ${messageOf(error)}.`,
      'Run this as the user of the agent, or as root, on a disk with room.',
      { cause: error },
    )
  }
}

/**
 * What root writes for an agent is the agent's to read, and goes where that user may write: a link that was laid there
 * leads root nowhere else. setresuid(2): the rights of files follow the effective user.
 */
function asOwner(dataDir: string, work: () => void): void {
  const { uid, gid } = statSync(dataDir)
  if (process.geteuid?.() !== 0 || uid === 0) {
    work()
    return
  }
  const [group, groups] = [process.getegid?.() ?? 0, process.getgroups?.() ?? []]
  try {
    process.setgroups?.([gid])
    process.setegid?.(gid)
    process.seteuid?.(uid)
    work()
  } finally {
    process.seteuid?.(0)
    process.setegid?.(group)
    process.setgroups?.(groups)
  }
}

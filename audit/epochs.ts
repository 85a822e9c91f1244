/**
 * A node's log over all its epochs, read as a stranger would: each epoch under its own keys, and the joints between them.
 * The reader needs the keys of one; those of its neighbours are in what it signed. docs/audit.md section "Epochs".
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openCheckpoint, parseCheckpoint } from './checkpoint.ts'
import { epochOf, fuller, jointFault, successorOf } from './epoch.ts'
import { AuditError } from './errors.ts'
import { parseVkey } from './note.ts'
import { verifyLog, type Verdict, type VerifyOptions } from './verify.ts'

/** One epoch's directory. */
export interface EpochPlace {
  readonly epoch: number
  readonly directory: string
}

export interface EpochVerdict extends EpochPlace {
  readonly origin: string
  readonly verdict: Verdict
}

export interface EpochsVerdict {
  /** The worst that is to be said of any epoch or of a joint between two. */
  readonly outcome: Verdict['outcome']
  /** Why it is not proven, in words. */
  readonly why?: string
  /** What was read, the first epoch first. */
  readonly epochs: readonly EpochVerdict[]
  /** The log from which the first epoch read goes on, and how many events that had; absent: it is the very first. */
  readonly before?: { readonly origin: string; readonly size: number }
}

/** The epochs that lie in a node's directory, `<epoch>/` each, in order; none where it is no such directory. */
export function epochsIn(directory: string): EpochPlace[] {
  if (!existsSync(directory)) return []
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && /^[1-9]\d{0,8}$/.test(entry.name))
    .map(({ name }) => ({ epoch: Number(name), directory: join(directory, name) }))
    .toSorted((a, b) => a.epoch - b.epoch)
}

/** The log that a directory says it is of; null where nothing was signed. */
export function claimed(directory: string): string | null {
  const path = join(directory, 'checkpoint')
  if (!existsSync(path)) return null
  try {
    return parseCheckpoint(readFileSync(path, 'utf8')).origin
  } catch (error) {
    // What is no note is found, and said with its place, when the epoch is read.
    if (error instanceof AuditError) return null
    throw error
  }
}

/** Keys by the log they are of. */
function byOrigin(vkeys: readonly string[]): Map<string, readonly string[]> {
  const found = new Map<string, readonly string[]>()
  for (const vkey of vkeys) {
    const { name } = parseVkey(vkey)
    found.set(name, [...(found.get(name) ?? []), vkey])
  }
  return found
}

interface Walk {
  readonly options: VerifyOptions
  /** Of which witnesses are demanded: it is over the first leaf, which is over the last head of the one before. */
  readonly newest: number
  readonly keys: Map<string, readonly string[]>
  readonly read: Map<number, EpochVerdict>
}

/** Reads an epoch whose keys are known, and takes from what it signed the keys of those next to it. */
async function readEpoch(walk: Walk, place: EpochPlace, origin: string): Promise<void> {
  const { options, keys } = walk
  const held = (options.held ?? []).filter((note) => parseCheckpoint(note).origin === origin)
  const verifierKeys = keys.get(origin) ?? []
  const verdict = await verifyLog({
    ...options,
    directory: place.directory,
    verifierKeys,
    held,
    ...(place.epoch === walk.newest ? {} : { quorum: 0 }),
  })
  walk.read.set(place.epoch, { ...place, origin, verdict })
  if (verdict.outcome !== 'proven') return
  const { opening, closing } = verdict
  if (opening !== undefined && !keys.has(opening.predecessor))
    keys.set(opening.predecessor, opening.keys)
  if (closing !== undefined && !keys.has(closing.successor))
    keys.set(closing.successor, closing.keys)
}

/** What is wrong between two epochs that were both proven; null: nothing. */
function between(walk: Walk, older: EpochVerdict, newer: EpochVerdict): string | null {
  const { closing, checkpoint } = older.verdict
  const { opening, pruned } = newer.verdict
  const keysOf = (origin: string): readonly string[] => walk.keys.get(origin) ?? []
  return jointFault({
    origin: older.origin,
    keys: fuller(keysOf(older.origin), opening?.keys),
    last: checkpoint ?? { origin: older.origin, size: 0, root: '' },
    closing: closing ?? null,
    next: {
      origin: newer.origin,
      keys: fuller(keysOf(newer.origin), closing?.keys),
      opening: opening ?? (pruned === undefined ? null : 'pruned'),
    },
  })
}

/**
 * Of how many events the older one's last head is, where fewer are here: a copy that was not taken to its end, as its own
 * keys say. Null: all are here, or nothing that those keys signed says otherwise.
 */
function missingFrom(walk: Walk, older: EpochVerdict, newer: EpochVerdict): number | null {
  const { opening } = newer.verdict
  const here = older.verdict.checkpoint?.size ?? 0
  if (opening?.predecessor !== older.origin || older.verdict.closing !== undefined) return null
  try {
    const keys = walk.keys.get(older.origin) ?? []
    const { origin, size } = openCheckpoint(opening.note, keys.map(parseVkey))
    return origin === older.origin && size > here ? size : null
  } catch (error) {
    if (error instanceof AuditError) return null
    throw error
  }
}

type Ending = Pick<EpochsVerdict, 'outcome' | 'why'>
const notProvable = (why: string): Ending => ({ outcome: 'not-provable', why })

/** Whether the reader brought keys of this log. */
function ownKeys({ options }: Walk, origin: string): boolean {
  return options.verifierKeys.some((vkey) => parseVkey(vkey).name === origin)
}

/** The worst of the epochs themselves, first violations. */
function worstOf(walk: Walk, epochs: readonly EpochVerdict[]): Ending | null {
  const order = ['violated', 'not-provable'] as const
  for (const outcome of order)
    for (const { epoch, origin, verdict } of epochs) {
      const said = verdict.why ?? verdict.place?.what ?? verdict.outcome
      const named = ownKeys(walk, origin) ? '' : ', under the keys that the epoch next to it names'
      if (verdict.outcome === outcome) return { outcome, why: `epoch ${epoch}${named}: ${said}` }
    }
  return null
}

/** Whose keys the reader brought, of an epoch that ought to lie here and does not; those before the first are archived. */
function keysOfNone({ options }: Walk, epochs: readonly EpochVerdict[]): string | null {
  const [oldest] = epochs
  if (oldest === undefined) return null
  const stem = oldest.origin.replace(/\d+$/, '')
  const here = new Set(epochs.map(({ origin }) => origin))
  for (const vkey of options.verifierKeys) {
    const { name } = parseVkey(vkey)
    const epoch = epochOf(name)
    if (epoch === null || name !== `${stem}${epoch}`) continue
    if (epoch > oldest.epoch && !here.has(name))
      return `keys were given of ${name}, which is not here`
  }
  return null
}

/** What the joints say, once every epoch that is here is proven. */
function joined(walk: Walk, epochs: readonly EpochVerdict[]): Ending {
  let gap: Ending | null = null
  for (const [i, newer] of epochs.entries()) {
    const older = epochs[i - 1]
    if (older === undefined) continue
    const missing = newer.epoch - 1
    const { opening, pruned } = newer.verdict
    const begun = opening === undefined && pruned !== undefined
    // The epoch between may be elsewhere; one that says it goes on from another was not made by this log.
    const follows = begun || epochOf(opening?.predecessor ?? '') === missing
    if (older.epoch !== missing && follows) {
      gap ??= notProvable(`epoch ${missing}, from which ${newer.origin} goes on, is not here`)
      continue
    }
    const whole = missingFrom(walk, older, newer)
    if (whole !== null) {
      const { size = 0 } = older.verdict.checkpoint ?? {}
      gap ??= notProvable(
        `of the ${whole} events that ${older.origin} ended with, as ${newer.origin} holds it, ${size} are here`,
      )
      continue
    }
    const fault = between(walk, older, newer)
    if (fault !== null) return { outcome: 'violated', why: fault }
    if (begun)
      gap ??= notProvable(
        `the beginning of ${newer.origin} was pruned, which says that it goes on from ${older.origin}: take its archive`,
      )
  }
  if (gap !== null) return gap
  const closing = epochs.at(-1)?.verdict.closing
  if (closing !== undefined)
    return notProvable(`the log goes on as ${closing.successor}, which is not here`)
  const none = keysOfNone(walk, epochs)
  return none === null ? { outcome: 'proven' } : notProvable(none)
}

/** What an epoch is doing in this folder, where its name says otherwise. */
function misplaced(places: readonly (EpochPlace & { origin: string | null })[]): string | null {
  const stems = new Set<string>()
  for (const { epoch, origin } of places) {
    if (origin === null) continue
    if (epochOf(origin) !== epoch) return `the folder of epoch ${epoch} holds the log ${origin}`
    stems.add(successorOf(origin).replace(/\d+$/, ''))
  }
  return stems.size > 1 ? `the folder holds epochs of several logs: ${[...stems].join(', ')}` : null
}

function heldElsewhere(options: VerifyOptions, origins: readonly (string | null)[]): string | null {
  for (const note of options.held ?? []) {
    const { origin } = parseCheckpoint(note)
    if (!origins.includes(origin)) return `a held note is of ${origin}, which is not here`
  }
  return null
}

/**
 * Verifies every epoch in a node's directory (`log/<node>`, or a copy of it), offline, and that each begins with the last
 * head of the one before, which ended for just it. `verifierKeys`: of any one epoch at least. `quorum`: of the newest; what
 * witnesses said of any epoch must be it all the same. Throws key.invalid,
 * note.invalid for what the reader brought; everything that is wrong with the log itself is a verdict.
 */
export async function verifyEpochs(options: VerifyOptions): Promise<EpochsVerdict> {
  const places = epochsIn(options.directory).map((place) => ({
    ...place,
    origin: claimed(place.directory),
  }))
  const walk: Walk = {
    options,
    newest: places.at(-1)?.epoch ?? 0,
    keys: byOrigin(options.verifierKeys),
    read: new Map(),
  }
  const wrong = misplaced(places)
  if (wrong !== null) return { outcome: 'violated', why: wrong, epochs: [] }
  for (let before = -1; before !== walk.read.size;) {
    before = walk.read.size
    // From the newest back: each names the keys of the one before.
    for (const place of places.toReversed())
      if (place.origin !== null && walk.keys.has(place.origin) && !walk.read.has(place.epoch))
        await readEpoch(walk, place, place.origin)
  }
  const epochs = [...walk.read.values()].toSorted((a, b) => a.epoch - b.epoch)
  return { ...endingOf(walk, places, epochs), epochs, ...beforeOf(epochs[0]) }
}

function endingOf(
  walk: Walk,
  places: readonly (EpochPlace & { origin: string | null })[],
  epochs: readonly EpochVerdict[],
): Ending {
  const worst = worstOf(walk, epochs)
  if (worst !== null) return worst
  if (places.length === 0) return notProvable('there is no epoch here')
  const unread = places.find(({ epoch }) => !walk.read.has(epoch))
  if (unread !== undefined) return notProvable(unreadWhy(unread))
  const elsewhere = heldElsewhere(
    walk.options,
    places.map(({ origin }) => origin),
  )
  return elsewhere === null ? joined(walk, epochs) : notProvable(elsewhere)
}

function unreadWhy({ epoch, origin }: { epoch: number; origin: string | null }): string {
  return origin === null
    ? `epoch ${epoch}: there is no checkpoint: nothing was signed`
    : `epoch ${epoch}: no key given is of ${origin}, nor is any epoch next to it proven`
}

function beforeOf(first: EpochVerdict | undefined): Pick<EpochsVerdict, 'before'> {
  const opening = first?.verdict.opening
  if (opening === undefined) return {}
  const { origin, size } = parseCheckpoint(opening.note)
  return { before: { origin, size } }
}

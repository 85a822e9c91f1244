/**
 * Which epoch of a node's log is the one to write, told from what is on disk, and the rotation from one to the next: a few
 * steps, each of which leaves a state that this file finishes or names. docs/audit.md section "Epochs".
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseCheckpoint, type Checkpoint } from './checkpoint.ts'
import { claim } from './claim.ts'
import type { AuditLog } from './contract.ts'
import { makeDirectory, realDisk } from './disk.ts'
import { closingIn, openingIn, successorOf, type Closing, type Opening } from './epoch.ts'
import { epochsIn } from './epochs.ts'
import { AuditError } from './errors.ts'
import type { Actor } from './event.ts'
import { joinOf } from './format/ocsf.ts'
import { openLog } from './log.ts'
import { formatVkey, noteSigner } from './note.ts'
import type { LogOptions, Signers } from './options.ts'
import { LogReader } from './read.ts'
import { correlationOf } from './recover.ts'
import { moveReserve, removeReserve } from './reserve.ts'
import { lastLeaf, look, type Seen } from './seen.ts'
import { Writer } from './writer.ts'

/** The private keys of each epoch, where the gateway has them. */
export interface EpochKeys {
  /** Null where they are not all there. */
  readonly read: (epoch: number) => Signers | null
  /** Makes them, durable; what an earlier try left is replaced. */
  readonly make: (epoch: number) => Signers
  /** Takes them away for good; nothing where there are none. */
  readonly remove: (epoch: number) => void
  /** The newest epoch that keys are there for; 0: none. */
  readonly newest: () => number
}

export interface NodeLogOptions extends Omit<
  LogOptions,
  'directory' | 'origin' | 'signers' | 'opening'
> {
  /** The node's directory: each epoch is a folder in it. */
  readonly directory: string
  /** `<domain>/audit/<node>`: an epoch's origin is this, a slash and its number. */
  readonly stem: string
  readonly keys: EpochKeys
  /** Told after each step of a rotation is on disk: where a test lets the process die. */
  readonly step?: (name: string) => void
}

/** An epoch that was ended, as the one after it names it. */
export interface EndedEpoch {
  readonly epoch: number
  readonly origin: string
  /** Its folder; it may have been moved to an archive. */
  readonly directory: string
  readonly vkeys: readonly string[]
  /** Its last head. */
  readonly last: Checkpoint
}

/** Reads an ended epoch as the log itself was read. */
export function readerOf({ directory, origin, last }: EndedEpoch): Pick<AuditLog, 'read' | 'size'> {
  const reader = new LogReader(directory, origin)
  return {
    size: last.size,
    read: async (from, limit) => reader.entries(from, last.size, limit),
  }
}

export interface NodeLog {
  readonly epoch: number
  readonly log: AuditLog
  /** Those before it, the newest first, as far back as their folders are here. */
  readonly ended: readonly EndedEpoch[]
  /** A rotation that had been cut short was brought to its end by this opening. */
  readonly resumed: boolean
  /** Why the private keys of the epoch that ended are still there; absent: they are gone. */
  readonly kept?: Error
}

interface Chosen {
  readonly epoch: number
  /** It goes on from the one before, which ended, and has no event yet. */
  readonly begin: boolean
}
type Known = Pick<EpochKeys, 'read' | 'newest'>

function refuse(
  code: 'log.corrupt' | 'log.rollback' | 'log.origin' | 'key.invalid',
  what: string,
): never {
  throw new AuditError(code, what)
}

/** Which epoch to write, or to begin from the one before it; pure. Throws AuditError log.rollback, log.origin, key.invalid. */
function choose(seen: Seen | null, stem: string, keys: Known): Chosen {
  const closing = seen?.closing ?? null
  const epoch = seen?.epoch ?? 1
  return closing === null ? goOn(epoch, stem, keys) : goOver(epoch, closing, stem, keys)
}

/** The newest epoch has not ended. */
function goOn(epoch: number, stem: string, keys: Known): Chosen {
  const newest = keys.newest()
  const there = keys.read(epoch) !== null
  if (!there && newest > epoch)
    refuse(
      'log.rollback',
      `epoch ${newest} of the log ${stem} was begun, as its keys say, and only epoch ${epoch} is here: put its folder back`,
    )
  // Those of the first are made at the very first start.
  if (!there && epoch > 1)
    refuse(
      'key.invalid',
      `the private keys of epoch ${epoch} of ${stem} are not here: put them back`,
    )
  return { epoch, begin: false }
}

/** It has, and no event of the next is here. */
function goOver(epoch: number, { successor }: Closing, stem: string, keys: Known): Chosen {
  const [own, next] = [`${stem}/${epoch}`, `${stem}/${epoch + 1}`]
  if (successor !== next)
    refuse('log.origin', `${own} was ended for ${successor}, and this node goes on as ${next}`)
  if (keys.read(epoch) === null)
    refuse(
      'log.rollback',
      `${next} was begun, as the keys of the epoch before it are gone, and its folder is not here: put it back`,
    )
  if (keys.read(epoch + 1) === null)
    refuse(
      'key.invalid',
      `${own} was ended for ${next}, whose private keys are not here: put them back`,
    )
  return { epoch: epoch + 1, begin: true }
}

export const vkeysOf = (origin: string, { ed25519, mlDsa44 }: Signers): string[] =>
  [ed25519, mlDsa44].filter((key) => key !== undefined).map((key) => formatVkey(origin, key))

/**
 * Reads an epoch that ended as any opening does, every byte under its own keys, and signs the head over its end where that
 * was not done any more: what the next one begins with, and lets the keys go that could mend it. Gives the sessions that
 * it does not say the end of. Errors: log.locked, those of recovery.
 */
async function signEnd(
  options: NodeLogOptions,
  epoch: number,
  signers: Signers,
): Promise<readonly string[]> {
  const [directory, origin] = [join(options.directory, `${epoch}`), `${options.stem}/${epoch}`]
  const keys = [signers.ed25519, signers.mlDsa44].filter((key) => key !== undefined)
  const claimed = await claim(directory)
  const writer = new Writer({
    directory,
    origin,
    signers: keys.map((key) => noteSigner(origin, key)),
    disk: realDisk,
    segmentBytes: Number.MAX_SAFE_INTEGER,
  })
  try {
    const { sessions } = writer.open()
    writer.sign(options.clock.now())
    return sessions.map(([session]) => session)
  } finally {
    writer.close()
    claimed?.close()
  }
}

/** What the next epoch begins with. The end named its keys: others are none of its. Throws AuditError key.invalid. */
function openingOf(options: NodeLogOptions, epoch: number, signers: Signers): Opening {
  const [directory, origin] = [join(options.directory, `${epoch}`), `${options.stem}/${epoch}`]
  const named = closingIn(lastLeaf(directory, origin)?.body ?? new Uint8Array())
  const own = vkeysOf(successorOf(origin), options.keys.read(epoch + 1) as Signers)
  if (!own.every((key) => named?.keys.includes(key)) || own.length !== named?.keys.length)
    throw new AuditError(
      'key.invalid',
      `the keys of ${successorOf(origin)} that are here are not those that ${origin} was ended for: put those back`,
    )
  const note = readFileSync(join(directory, 'checkpoint'), 'utf8')
  return { predecessor: origin, keys: vkeysOf(origin, signers), note }
}

/** What the epoch after one that ended begins with, once that is signed to its end. */
async function sealed(options: NodeLogOptions, epoch: number): Promise<Opening> {
  const old = options.keys.read(epoch) as Signers
  const carried = await signEnd(options, epoch, old)
  return { ...openingOf(options, epoch, old), carried }
}

const endedAs = (directory: string, epoch: number, opening: Opening): EndedEpoch => ({
  epoch,
  origin: opening.predecessor,
  directory: join(directory, `${epoch}`),
  vkeys: opening.keys,
  last: parseCheckpoint(opening.note),
})

/**
 * The starts of sessions that began before `epoch` and may not have ended, found in the folders that are here: what the
 * event of their end says beside that it is one. What of them is damaged is no start.
 */
function startsBefore(
  { directory, stem }: NodeLogOptions,
  epoch: number,
  sessions: ReadonlySet<string>,
): Map<string, string> {
  const found = new Map<string, string>()
  const earlier = epochsIn(directory).filter((one) => one.epoch < epoch)
  for (const one of earlier.toReversed()) {
    if (found.size === sessions.size) break
    for (const { body } of new LogReader(one.directory, `${stem}/${one.epoch}`).bodies(0)) {
      const join = joinOf(body)
      if (join?.code !== 'session.start') continue
      const text = Buffer.from(body).toString()
      const session = correlationOf(text)
      if (sessions.has(session) && !found.has(session)) found.set(session, text)
    }
  }
  return found
}

/**
 * The epochs before, as each one's first leaf names the one before it. Reads only. Throws AuditError log.rollback,
 * log.corrupt (a later epoch that does not begin as one), note.invalid and key.invalid for a leaf that is none.
 */
function endedBefore({ directory, stem }: NodeLogOptions, epoch: number): EndedEpoch[] {
  const ended: EndedEpoch[] = []
  for (let at = epoch; at > 1; at--) {
    const [first] = new LogReader(join(directory, `${at}`), `${stem}/${at}`).bodies(0)
    // Of an epoch whose beginning was pruned the ones before are in an archive too.
    if (first?.idx !== 0) return ended
    const opening = openingIn(first.body)
    if (opening === null)
      refuse(
        'log.corrupt',
        `${stem}/${at} does not begin with the end of ${stem}/${at - 1}: event 0 is another`,
      )
    const one = endedAs(directory, at - 1, opening)
    const { last } = one
    if (!existsSync(join(one.directory, 'checkpoint'))) return ended
    const there = parseCheckpoint(readFileSync(join(one.directory, 'checkpoint'), 'utf8'))
    if (there.size !== last.size || there.root !== last.root)
      throw new AuditError(
        'log.rollback',
        `${stem}/${at} goes on from ${last.size} events of ${opening.predecessor}, and there is another head of ${there.size}`,
      )
    ended.push(one)
  }
  return ended
}

/**
 * Opens the newest epoch of a node's log, or makes the first one; a rotation that was cut short is brought to its end
 * first. Errors: those of `openLog`; log.rollback (an epoch that was begun is gone, or is not the one that was),
 * log.origin, key.invalid (the keys that are needed are not here).
 */
export async function openNodeLog(options: NodeLogOptions): Promise<NodeLog> {
  const { directory, stem, keys, step = () => {}, ...shared } = options
  makeDirectory(directory)
  const seen = look(options.directory, options.stem)
  const { epoch, begin } = choose(seen, stem, keys)
  // All that can be refused is refused before a byte is written.
  const before = endedBefore(options, begin ? epoch - 1 : epoch)
  const signers = keys.read(epoch) ?? keys.make(epoch)
  const opening = begin && seen !== null ? await sealed(options, seen.epoch) : undefined
  // The next one keeps as much back; what it has of that already pays, on a full disk, for its beginning.
  for (const old of epochsIn(directory))
    if (old.epoch < epoch || (begin && old.epoch === epoch)) removeReserve(old.directory)
  const log = await openLog({
    ...shared,
    directory: join(directory, `${epoch}`),
    origin: `${stem}/${epoch}`,
    signers,
    startsOf: (sessions) => startsBefore(options, epoch, sessions),
    ...(opening === undefined ? {} : { opening }),
  })
  try {
    const newest = opening === undefined ? [] : [endedAs(directory, epoch - 1, opening)]
    if (begin) step('begun')
    // Its first head is signed: from now on that the old ones are gone says so.
    for (let old = epoch - 1; old >= 1; old--) keys.remove(old)
    if (begin) step('removed')
    return { epoch, log, ended: [...newest, ...before], resumed: begin }
  } catch (error) {
    await log.close()
    throw error
  }
}

/**
 * Begins the epoch behind `old`, which this very process has ended and signed to its end: nothing of it need be read again. The
 * old private keys go once the next has its first head. Errors: those of `openLog`; the next opening finds what was done.
 */
export async function beginNext(
  options: NodeLogOptions,
  old: number,
  signers: Signers,
  opening: Opening,
  before: readonly EndedEpoch[],
): Promise<NodeLog> {
  const { directory, stem, keys, step = () => {}, ...shared } = options
  const epoch = old + 1
  moveReserve(join(directory, `${old}`), join(directory, `${epoch}`))
  const log = await openLog({
    ...shared,
    directory: join(directory, `${epoch}`),
    origin: `${stem}/${epoch}`,
    signers,
    opening,
  })
  const begun = { epoch, log, ended: [endedAs(directory, old, opening), ...before], resumed: false }
  try {
    step('begun')
    keys.remove(old)
    step('removed')
    return begun
  } catch (kept) {
    // The next start takes them away; the epoch that was begun is written all the same.
    return { ...begun, kept: kept instanceof Error ? kept : new Error(String(kept)) }
  }
}

export interface Rotation {
  /** The epoch that ended, and its last head. */
  readonly ended: EndedEpoch
  readonly log: AuditLog
  readonly epoch: number
  /** It had been begun before and was cut short: nothing was begun now, only brought to its end. */
  readonly resumed: boolean
  /** Why the private keys of the epoch that ended are still there; absent: they are gone. */
  readonly kept?: Error
  /** Why somebody who knows the log by its name does not follow it, until the next start; absent: everybody does. */
  readonly unfollowed?: Error
}

/**
 * Ends the newest epoch of a log that nobody writes to, and begins the next under keys made for it. Gives it open: the
 * caller closes it. A rotation that was cut short is brought to its end instead. Errors: those of `openNodeLog`; log.range
 * (there is no log yet); after any, the next opening or rotation finds what was done and does the rest.
 */
export async function rotateNodeLog(options: NodeLogOptions, by?: Actor): Promise<Rotation> {
  const { directory, keys, stem, step = () => {} } = options
  if (look(directory, stem) === null)
    throw new AuditError('log.range', `there is no log in ${directory}: nothing is rotated`)
  const before = await openNodeLog(options)
  const { epoch, log } = before
  const [ended] = before.ended
  if (before.resumed && ended !== undefined) return { ended, log, epoch, resumed: true }
  try {
    const successor = `${stem}/${epoch + 1}`
    const next = keys.make(epoch + 1)
    step('keys')
    await log.end({ successor, keys: vkeysOf(successor, next) }, by)
    step('ended')
  } finally {
    await log.close()
  }
  const after = await openNodeLog(options)
  const [last] = after.ended
  if (last === undefined) throw new AuditError('log.rollback', `${stem}/${epoch} is gone`)
  return { ended: last, log: after.log, epoch: after.epoch, resumed: false }
}

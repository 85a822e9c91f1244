/** What of a log is shown to who holds a head of an epoch before: made from the logs' own files. */
import { AuditError } from './errors.ts'
import { HashesKept } from './prove.ts'
import { LogReader } from './read.ts'
import { handoversLimit, type Handover } from './shown.ts'
import type { EndedEpoch } from './succession.ts'
import { consistencyProof, inclusionProof, type Perfect } from './tree.ts'

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

/** A handover as it is written down. */
type Written = {
  -readonly [K in keyof Handover]: Handover[K] extends readonly string[] ? string[] : Handover[K]
}

type Where = Pick<EndedEpoch, 'directory' | 'origin'>

/** One epoch's files; its reader keeps its place, because after a rotation everybody asks. */
class Tree {
  readonly #where: Where
  readonly #reader: LogReader
  readonly #hashes: HashesKept

  constructor(where: Where) {
    this.#where = where
    this.#reader = new LogReader(where.directory, where.origin)
    this.#hashes = new HashesKept(where.directory, this.#reader)
  }

  hashes(size: number): Perfect {
    return this.#hashes.of(size)
  }

  /** A leaf, and what leads from it to the head of `size` events. Errors: log.range (it was pruned, or is not there). */
  leaf(idx: number, size: number): { readonly body: string; readonly path: string[] } {
    const [leaf] = this.#reader.bodies(idx)
    if (leaf?.idx !== idx)
      throw new AuditError('log.range', `event ${idx} of ${this.#where.origin} is not there`)
    return { body: text(leaf.body), path: inclusionProof(this.hashes(size), idx, size).map(text) }
  }
}

/** The rotations of a log, for who missed them. */
export class Handovers {
  readonly #ended: readonly EndedEpoch[]
  readonly #newest: Tree
  readonly #trees: ReadonlyMap<string, Tree>

  /** `ended`: the epochs before `newest`, the newest first. */
  constructor(newest: Where, ended: readonly EndedEpoch[]) {
    this.#ended = ended
    this.#newest = new Tree(newest)
    this.#trees = new Map(ended.map((one) => [one.origin, new Tree(one)]))
  }

  /**
   * The rotations from the epoch `held` to the newest, whose head has `size` events, for who holds the head of `from`
   * events of that epoch. Empty where that epoch is none of them, more rotations ago than one answer shows, or a leaf that
   * it takes was pruned: then nothing can be shown, and the owner's word is needed.
   */
  to(size: number, held: string, from: number): Written[] {
    const at = this.#ended.findIndex(({ origin }) => origin === held)
    if (at + 1 > handoversLimit) return []
    try {
      return this.#ended
        .slice(0, at + 1)
        .map((epoch, i) => this.#one(epoch, this.#ended[i - 1], size, i === at ? from : 0))
        .toReversed()
    } catch (error) {
      if (error instanceof AuditError && error.code === 'log.range') return []
      throw error
    }
  }

  #one(
    { origin, last }: EndedEpoch,
    next: EndedEpoch | undefined,
    size: number,
    from: number,
  ): Written {
    const tree = this.#treeOf(origin)
    const closing = tree.leaf(last.size - 1, last.size)
    const opening = this.#treeOf(next?.origin).leaf(0, next?.last.size ?? size)
    // A head of more events than that has: nothing leads there, and what is shown says how many it has.
    const proof =
      from > last.size ? [] : consistencyProof(tree.hashes(last.size), from, last.size).map(text)
    return {
      note: last.note,
      from,
      proof,
      closing: closing.body,
      closing_path: closing.path,
      opening: opening.body,
      opening_path: opening.path,
    }
  }

  #treeOf(origin: string | undefined): Tree {
    return (origin === undefined ? undefined : this.#trees.get(origin)) ?? this.#newest
  }
}

/** The locks of a node: read from the store at start, and from then on asked about in every decision. */
import type { AuditLog } from '#audit'
import type { Input, Partially } from '#policy'
import { actorOf, srcOf } from '../events.ts'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import { SCOPES, touchedBy, touches, type Lock, type LockScope, type LockStore } from './lock.ts'

const MOST = 1000
/** What policy is shown of the locks that touch a question; one is enough to deny. */
const SHOWN = 16

interface LocksRoom {
  readonly store: LockStore
  readonly log: Pick<AuditLog, 'append'>
  /** Epoch milliseconds. */
  readonly now: () => number
}

interface By {
  readonly subject: Subject
  readonly source: Source
  readonly reason: string
}

export class Locks {
  readonly #room: LocksRoom
  readonly #standing: Map<string, Lock>

  private constructor(room: LocksRoom, standing: readonly Lock[]) {
    this.#room = room
    this.#standing = new Map(standing.map((lock) => [lock.id, lock]))
  }

  static async open(room: LocksRoom): Promise<Locks> {
    return new Locks(room, await room.store.standingLocks())
  }

  /** The locks on whom and what the facts are about, in policy's words. */
  on(facts: Partially<Input>): Input['locks'] {
    if (this.#standing.size === 0) return []
    const of = touchedBy(facts)
    return [...this.#standing.values()]
      .filter((lock) => of.some((one) => touches(lock, one)))
      .slice(0, SHOWN)
      .map(({ id, scope, reason }) => ({ id, scope: SCOPES[scope], reason }))
  }

  list(limit: number): Promise<readonly Lock[]> {
    return this.#room.store.listLocks(limit)
  }

  /**
   * Puts a lock on: recorded, kept, and in force when this resolves. The caller cuts what it touches.
   * Throws Refusal `lock.full`, and `log.unavailable` through the log.
   */
  async add(scope: LockScope, target: string, by: By): Promise<Lock> {
    const { store, now } = this.#room
    const lock: Lock = {
      id: newId('l'),
      scope,
      target,
      reason: by.reason,
      by: by.subject.id,
      by_email: by.subject.email,
      at: Math.floor(now() / 1000),
      lifted: null,
    }
    await this.#record('session.lock', lock, by, `locked: ${scope} ${target}`)
    if (!(await store.addLock(lock, MOST)))
      throw new Refusal('lock.full', `${MOST} locks are in force; there cannot be more`, {
        nextStep: 'lift those that are not needed any more: sallyport lock list',
      })
    this.#standing.set(lock.id, lock)
    return lock
  }

  /**
   * Lifts a lock, recorded first. Nobody lifts one that is on themselves or their company.
   * Throws Refusal `lock.unknown`, `lock.own`, and `log.unavailable` through the log.
   */
  async lift(id: string, by: By): Promise<Lock> {
    const { store, now } = this.#room
    const lock = await store.findLock(id)
    if (lock === undefined || lock.lifted !== null)
      throw new Refusal('lock.unknown', `no lock ${id} is in force`, {
        nextStep: 'sallyport lock list',
      })
    const { id: subject, vendor: company } = by.subject
    const own = { subject, company, device: null, process: null, zone: null }
    if (lock.scope !== 'everything' && touches(lock, own))
      throw new Refusal('lock.own', 'nobody lifts a lock that is on themselves', {
        nextStep: 'ask another administrator',
      })
    await this.#record('session.unlock', lock, by, `lock lifted: ${lock.scope} ${lock.target}`)
    const lifted = { at: Math.floor(now() / 1000), by: subject, reason: by.reason }
    const after = await store.liftLock(id, lifted)
    if (after === undefined)
      throw new Refusal('lock.unknown', `the lock ${id} was lifted meanwhile`)
    this.#standing.delete(id)
    return after
  }

  async #record(
    code: 'session.lock' | 'session.unlock',
    { id, scope, target }: Lock,
    { subject, source, reason }: By,
    message: string,
  ): Promise<void> {
    await this.#room.log.append({
      code,
      message: `${message} (${id}): ${reason}`,
      status: 'success',
      actor: actorOf(subject),
      src: srcOf(source),
      reason: id,
      data: { target, scope },
    })
  }
}

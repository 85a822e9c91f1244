/** The locks of a node: read from the store at start, and from then on asked about in every decision. */
import type { AuditLog } from '#audit'
import type { Input, Partially } from '#policy'
import { actorOf, srcOf } from '../events.ts'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal, type ProblemCode } from '../problem.ts'
import { SCOPES, touchedBy, touches } from './lock.ts'
import type { Lock, LockPlace, LockScope, LockStore, Touched } from './lock.ts'

const MOST = 1000
/** What policy is shown of the locks that touch a question; one is enough to deny. */
const SHOWN = 16

/** An account, and the human being it is of. */
export interface Owned {
  readonly identity: string
  readonly company: string | null
  readonly person: string
  /** An enabled administrator with an account of the gateway's own, and a password or a passkey to sign in with. */
  readonly administers: boolean
}

interface LocksRoom {
  readonly store: LockStore
  readonly log: Pick<AuditLog, 'append'>
  /** Every account here, and the human being it is of. */
  readonly people: () => Promise<readonly Owned[]>
  /** Whether other gateways put locks on and lift them too, some perhaps on people who have no account here. */
  readonly shared?: boolean
  /** Epoch milliseconds. */
  readonly now: () => number
}

type LockCode = 'session.lock' | 'session.unlock'

interface By {
  readonly subject: Subject
  readonly source: Source
  readonly reason: string
}

/** Of one identity: every account of that person. */
function accountsOf(target: string) {
  return (people: readonly Owned[]) => {
    const person = people.find(({ identity }) => identity === target)?.person
    return (account: Owned) => account.identity === target || account.person === person
  }
}

function lastAdministrator(): Refusal {
  return new Refusal('lock.last_admin', 'nobody would be left who may administer', {
    nextStep:
      'make another account an administrator first, or lift the lock on one; open sessions can be ended one by one',
  })
}

/** Why what was recorded failed, and what came of it: whoever reads the log has to know which of the two to believe. */
interface Failure {
  readonly reason: ProblemCode
  readonly effect: 'held' | 'none' | 'unknown'
}

function shown(happened: boolean | undefined): {
  readonly message: string
  readonly effect: Failure['effect']
} {
  if (happened === true) return { message: 'with effect, though the store failed', effect: 'held' }
  // What was told may still come to pass: the store is not always asked in the order in which it is told.
  const message =
    happened === undefined
      ? 'it is not known whether this took effect: the store failed'
      : 'without effect as far as the store shows: it failed'
  return { message, effect: 'unknown' }
}

export class Locks {
  readonly #room: LocksRoom
  #standing: Map<string, Lock>
  /** By locked identity, every account of that person. */
  #accounts: ReadonlyMap<string, ReadonlySet<string>> = new Map()
  /** The look at who is whose that is under way, and the one that comes behind it. */
  #links: { readonly now: Promise<unknown>; next: Promise<void> | undefined } = {
    now: Promise.resolve(),
    next: undefined,
  }
  #keeping: Promise<unknown> = Promise.resolve()
  #round = 0
  /** Locks that were put on or lifted here. */
  #acts = 0

  private constructor(room: LocksRoom, standing: readonly Lock[]) {
    this.#room = room
    this.#standing = new Map(standing.map((lock) => [lock.id, lock]))
  }

  /** Another number where `on` may say something else than before. */
  get round(): number {
    return this.#round
  }

  static async open(room: LocksRoom): Promise<Locks> {
    const locks = new Locks(room, await room.store.standingLocks())
    await locks.relink()
    return locks
  }

  /** Reads again what is locked, where others lock too: in force when this resolves. Rejects with StoreError. */
  async refresh(): Promise<void> {
    // What was put on or lifted here while they were read is not in what was read.
    let acts: number
    do {
      acts = this.#acts
      const standing = await this.#room.store.standingLocks()
      if (acts === this.#acts) this.#standing = new Map(standing.map((lock) => [lock.id, lock]))
    } while (acts !== this.#acts)
    this.#round++
    await this.relink()
  }

  /** Looks again which accounts are whose: at the start, and after accounts were linked or parted. */
  relink(): Promise<void> {
    // Whoever asks while one look is under way may know of more than that has read: they share the next.
    return (this.#links.next ??= this.#link())
  }

  async #link(): Promise<void> {
    await this.#links.now
    const look = async (): Promise<void> => {
      this.#accounts = await this.#accountsOfLocked()
      this.#round++
    }
    const mine = look()
    this.#links = { now: mine.catch(() => undefined), next: undefined }
    await mine
  }

  async #accountsOfLocked(): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
    const locked = [...this.#standing.values()].filter(({ scope }) => scope === 'identity')
    if (locked.length === 0) return new Map()
    const people = await this.#room.people()
    const personOf = new Map(people.map(({ identity, person }) => [identity, person]))
    const accounts = Map.groupBy(people, ({ person }) => person)
    return new Map(
      locked.map(({ target }) => {
        const theirs = accounts.get(personOf.get(target) ?? '') ?? []
        return [target, new Set(theirs.map(({ identity }) => identity))]
      }),
    )
  }

  /** Whether a lock is on whom or what is asked about; one on a person is on every account of theirs. */
  touches(lock: Pick<Lock, 'scope' | 'target'>, of: Touched): boolean {
    if (touches(lock, of)) return true
    if (lock.scope !== 'identity' || of.subject === null) return false
    return this.#accounts.get(lock.target)?.has(of.subject) ?? false
  }

  /** The locks on whom and what the facts are about, in policy's words. */
  on(facts: Partially<Input>): Input['locks'] {
    if (this.#standing.size === 0) return []
    const of = touchedBy(facts)
    return [...this.#standing.values()]
      .filter((lock) => of.some((one) => this.touches(lock, one)))
      .slice(0, SHOWN)
      .map(({ id, scope, reason }) => ({ id, scope: SCOPES[scope], reason }))
  }

  /** Whether an account of this identity, or of this company, is there. */
  async names(scope: 'identity' | 'company', target: string): Promise<boolean> {
    return (await this.#room.people()).some((account) => account[scope] === target)
  }

  /** Whether a lock is on exactly this: another one shuts nobody out who is let in. */
  isOn(scope: LockScope, target: string): boolean {
    return [...this.#standing.values()].some((one) => one.scope === scope && one.target === target)
  }

  /** Whether a lock is on this person, under whichever of their accounts. */
  shutsOut(subject: string): boolean {
    return this.#isOut(subject, [...this.#standing.values()])
  }

  #isOut(subject: string, locks: readonly Lock[]): boolean {
    const of = { subject, company: null, device: null, process: null, zone: null }
    return locks.some((lock) => lock.scope === 'identity' && this.touches(lock, of))
  }

  /**
   * Does `act`, which shuts out whomever `gone` names, one such act after the other; not where it would shut out the
   * last who may administer, since then nobody could take it back. Throws Refusal `lock.last_admin`.
   */
  keepingAdministrator<T>(
    gone: (people: readonly Owned[]) => (account: Owned) => boolean,
    act: () => Promise<T>,
  ): Promise<T> {
    const guarded = async (): Promise<T> => {
      // What another gateway locked since the last look counts.
      if (this.#room.shared === true) await this.refresh()
      const people = await this.#room.people()
      const able = people.filter((one) => one.administers && !this.shutsOut(one.identity))
      if (able.length > 0 && able.every(gone(people))) throw lastAdministrator()
      return await act()
    }
    const mine = this.#keeping.then(guarded, guarded)
    this.#keeping = mine.catch(() => undefined)
    return mine
  }

  /**
   * Does `act`, which says that `identity` is the human being of `other`: a lock on either is then on both. Not where
   * that would shut out the last who may administer; when it resolves, the locks know. Throws Refusal `lock.last_admin`.
   */
  async linking<T>(identity: string, other: string, act: () => Promise<T>): Promise<T> {
    const gone = (people: readonly Owned[]) => {
      const person = people.find((one) => one.identity === other)?.person
      const after = people.map((one) =>
        one.identity === identity && person !== undefined ? { ...one, person } : one,
      )
      const locked = [...this.#standing.values()].filter(({ scope }) => scope === 'identity')
      const shut = new Set(
        locked.flatMap(({ target }) =>
          after.filter(accountsOf(target)(after)).map((one) => one.identity),
        ),
      )
      return (account: Owned) => shut.has(account.identity)
    }
    return await this.keepingAdministrator(gone, async () => {
      const done = await act()
      await this.relink()
      return done
    })
  }

  /** Those that stand, then those that were lifted, newest first; behind `after`, at most `limit`. */
  list(limit: number, after?: LockPlace): Promise<readonly Lock[]> {
    return this.#room.store.listLocks(limit, after)
  }

  /**
   * Puts a lock on: recorded, kept, and in force when this resolves. The caller cuts what it touches.
   * Throws Refusal `lock.full`, `lock.last_admin`, `lock.person` (of another gateway, which alone knows who may
   * administer there), and `log.unavailable` through the log.
   */
  async add(scope: LockScope, target: string, by: By): Promise<Lock> {
    if (scope === 'identity' && (await this.#isForeign(target)))
      throw new Refusal('lock.person', `${target} has no account on this gateway`, {
        nextStep: 'lock it at the gateway that has this account',
      })
    const put = async () => await this.#put(scope, target, by)
    if (scope !== 'identity') return await put()
    return await this.keepingAdministrator(accountsOf(target), async () => {
      const lock = await put()
      if (this.#room.shared === true) await this.#orLifted(lock, by)
      return lock
    })
  }

  /**
   * Of the last two who may administer another gateway may have locked the other meanwhile, each having seen that one is
   * left. Whose lock the store has behind the other's sees both, and takes its own back; whose lock is before it keeps it,
   * for only of the second is it certain that it sees both. Throws Refusal `lock.last_admin`, and as `lift`.
   */
  async #orLifted(lock: Lock, by: By): Promise<void> {
    await this.refresh()
    const people = await this.#room.people()
    const able = people.filter(({ administers }) => administers)
    const standing = [...this.#standing.values()]
    const place = standing.findIndex(({ id }) => id === lock.id)
    if (!able.some(accountsOf(lock.target)(people))) return
    if (able.some(({ identity }) => !this.#isOut(identity, standing.slice(0, place + 1)))) return
    const why = 'lifted again: another gateway locked the others who may administer'
    await this.#lifted(lock, { ...by, reason: 'lock.last_admin' }, why)
    await this.relink()
    throw lastAdministrator()
  }

  async #put(scope: LockScope, target: string, by: By): Promise<Lock> {
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
    const kept = await this.#kept('session.lock', lock, by, () => store.addLock(lock, MOST))
    if (!kept) {
      await this.#record('session.lock', lock, by, 'not locked: there are too many', {
        reason: 'lock.full',
        effect: 'none',
      })
      throw new Refusal('lock.full', `${MOST} locks are in force; there cannot be more`, {
        nextStep: 'lift those that are not needed any more: sallyport lock list',
      })
    }
    this.#on(lock)
    await this.relink()
    return lock
  }

  /**
   * Lifts a lock, recorded first. Nobody lifts one that is on themselves or their company,
   * and of others' none that is on who may be of another gateway. Throws Refusal `lock.unknown`, `lock.own`, and `log.unavailable` through the log.
   */
  async lift(id: string, by: By): Promise<Lock> {
    const lock = await this.#room.store.findLock(id)
    if (lock === undefined || lock.lifted !== null)
      throw new Refusal('lock.unknown', `no lock ${id} is in force`, {
        nextStep: 'sallyport lock list',
      })
    const { id: subject, vendor: company } = by.subject
    const own = { subject, company, device: null, process: null, zone: null }
    if (lock.scope !== 'everything' && this.touches(lock, own))
      throw new Refusal('lock.own', 'nobody lifts a lock that is on themselves', {
        nextStep: 'ask another administrator',
      })
    // On somebody unknown here it may be on whoever lifts it, who may have an account elsewhere: not where they put it on.
    if (lock.scope === 'identity' && lock.by !== subject && (await this.#isForeign(lock.target)))
      throw new Refusal('lock.own', `${lock.target} has no account on this gateway`, {
        nextStep: 'lift it at the gateway that has this account, or let who put it on lift it',
      })
    const after = await this.#lifted(lock, by, `lock lifted: ${lock.scope} ${lock.target}`)
    if (after === undefined)
      throw new Refusal('lock.unknown', `the lock ${id} was lifted meanwhile`)
    return after
  }

  /** Recorded first, whatever comes of it; undefined where it was lifted before. */
  async #lifted(lock: Lock, by: By, message: string): Promise<Lock | undefined> {
    const { store, now } = this.#room
    await this.#record('session.unlock', lock, by, message)
    const lifted = { at: Math.floor(now() / 1000), by: by.subject.id, reason: by.reason }
    const lift = async () => await store.liftLock(lock.id, lifted)
    const after = await this.#kept('session.unlock', lock, by, lift)
    this.#off(lock.id)
    if (after === undefined)
      await this.#record('session.unlock', lock, by, 'not lifted: it was before', {
        reason: 'lock.unknown',
        effect: 'none',
      })
    return after
  }

  #on(lock: Lock): void {
    this.#standing.set(lock.id, lock)
    this.#acts++
    this.#round++
  }

  #off(id: string): void {
    this.#standing.delete(id)
    this.#acts++
    this.#round++
  }

  /** Whether this may be somebody of another gateway: of who has no account here nobody can tell who they are. */
  async #isForeign(identity: string): Promise<boolean> {
    return this.#room.shared === true && !(await this.names('identity', identity))
  }

  /**
   * What the log has said already holds when the store has it. Where it fails, it may have it all the same: it is asked
   * once what stands, and that is in force and in the log.
   */
  async #kept<T>(code: LockCode, lock: Lock, by: By, keep: () => Promise<T>): Promise<T> {
    try {
      return await keep()
    } catch (error) {
      const held = await this.#hasHappened(code, lock, by)
      if (held === true) {
        if (code === 'session.lock') this.#on(lock)
        else this.#off(lock.id)
      }
      const { message, effect } = shown(held)
      await this.#record(code, lock, by, message, { reason: 'store.unavailable', effect })
      if (held === true) await this.relink()
      throw error
    }
  }

  /** Whether the store shows what it was to do; undefined where it shows nothing. */
  async #hasHappened(code: LockCode, { id }: Lock, { subject }: By): Promise<boolean | undefined> {
    try {
      const found = await this.#room.store.findLock(id)
      if (code === 'session.lock') return found?.lifted === null
      return found?.lifted?.by === subject.id
    } catch {
      return undefined
    }
  }

  async #record(
    code: LockCode,
    { id, scope, target }: Lock,
    { subject, source, reason }: By,
    message: string,
    failure?: Failure,
  ): Promise<void> {
    await this.#room.log.append({
      code,
      message: `${message} (${id}): ${reason}`,
      status: failure === undefined ? 'success' : 'failure',
      actor: actorOf(subject),
      src: srcOf(source),
      reason: failure?.reason ?? id,
      data: { target, scope, effect: failure?.effect },
    })
  }
}

/**
 * What other gateways do to grants, locks, devices and people, as this one hears of it: every change is looked for a few times a second,
 * and the sessions it touches are decided again. Who has not been able to look for a while does not know any more what stands:
 * then every session is decided again, and what cannot be looked up does not go on.
 */
import { inTurn } from '../grants/turn.ts'
import { Rounds } from '../rounds.ts'
import type { Reauthorization } from './reevaluate.ts'
import type { SessionRoom } from './room.ts'
import { touchedBy } from './touched.ts'

/** Changes behind one, and where the last of all stands; `lost` where what was read last is not there to go on from. */
export interface News {
  readonly grants: readonly string[]
  /** Whether a lock was put on or lifted. */
  readonly locked: boolean
  /** Whose state changed, or the processes registered on them. */
  readonly devices: readonly string[]
  /** The `sub`s of people whose account or sign-ins changed. */
  readonly people: readonly string[]
  readonly place: string
  readonly lost: boolean
}

export interface Changes {
  /** What changed behind `place`, oldest first, at most a page of it; without one where to begin, and nothing. */
  after(place: string | undefined): Promise<News>
}

interface WatchRoom {
  readonly room: Pick<SessionRoom, 'grants' | 'live' | 'report'>
  readonly reauthorization: Pick<Reauthorization, 'withdraw'>
  readonly changes: Changes
  /** Reads the locks again: called before a session is decided for their sake. */
  readonly relock: () => Promise<void>
  /** Decides again what these people, by `sub`, have open; `at` is when that began, monotonic. */
  readonly people: (subs: ReadonlySet<string>, at: number) => Promise<void>
  /** Ends what this node issued to devices whose certificates have ended elsewhere; without a set, to any. */
  readonly endings: (devices?: ReadonlySet<string>) => Promise<void>
  /** Rejects where the store takes no write: it may well be read. Called at every look that sees. */
  readonly writable: () => Promise<void>
  /** What could not be told while it took none. */
  readonly seeing: () => Promise<void>
  /** Monotonic milliseconds. */
  readonly monotonic: () => number
}

const LOOK_MS = 250
/** Not having looked for so long is not knowing. */
const BLIND_MS = 3_000

export class ChangeWatch implements AsyncDisposable {
  readonly #of: WatchRoom
  #place: string
  /** When it was last known what had changed, and done about it. */
  #seen: number
  #failing = false
  #writes = true
  #untold = false
  /** A write that nobody answers must not keep this from looking. */
  #telling: Promise<void> | undefined
  readonly #rounds: Rounds

  private constructor(of: WatchRoom, place: string) {
    this.#of = of
    this.#place = place
    this.#seen = of.monotonic()
    this.#rounds = new Rounds(async () => {
      await this.look()
      return LOOK_MS
    }, LOOK_MS)
  }

  /** Begins with what is there now: to be called before the first session is. Rejects with StoreError. */
  static async open(of: WatchRoom): Promise<ChangeWatch> {
    const { place } = await of.changes.after(undefined)
    return new ChangeWatch(of, place)
  }

  /** Whether it is known what other gateways did. */
  get sighted(): boolean {
    return !this.#failing && this.#of.monotonic() - this.#seen < BLIND_MS
  }

  /** Whether others can hear of what this one does. */
  get writes(): boolean {
    return this.#writes
  }

  /** Looks once; resolves when what it found is decided. Never rejects. */
  async look(): Promise<void> {
    const { changes, monotonic, room } = this.#of
    const at = monotonic()
    const blind = at - this.#seen >= BLIND_MS
    try {
      const { grants, locked, devices, people, place, lost } = await changes.after(this.#place)
      const unsure = blind || lost
      if (unsure || locked) {
        await this.#of.relock()
        await this.#all(at, unsure ? 'grant' : 'lock')
        if (unsure) await this.#of.endings()
        else if (devices.length > 0) await this.#of.endings(new Set(devices))
      } else {
        if (people.length > 0) await this.#of.people(new Set(people), at)
        for (const id of new Set(grants)) await this.#one(id, at)
        if (devices.length > 0) await this.#on(new Set(devices), at)
      }
      this.#place = place
      // However long that took, the next look goes on from where this one read.
      this.#seen = monotonic()
      this.#failing = false
      this.#telling ??= this.#tell().finally(() => (this.#telling = undefined))
    } catch (error) {
      // Tried again at every look, and said once.
      if (!this.#failing && !this.#rounds.over)
        room.report(error, 'what other gateways did is not known')
      this.#failing = true
      if (monotonic() - this.#seen >= BLIND_MS) await this.#all(at, 'grant')
    }
  }

  /** Never rejects; each failure is said once. */
  async #tell(): Promise<void> {
    const { room, writable, seeing } = this.#of
    try {
      await writable()
      this.#writes = true
    } catch (error) {
      if (this.#writes && !this.#rounds.over)
        room.report(error, 'the store that gateways share takes no writes')
      this.#writes = false
      return
    }
    try {
      await seeing()
      this.#untold = false
    } catch (error) {
      if (!this.#untold && !this.#rounds.over)
        room.report(error, 'ends of sessions could not be told to the store that gateways share')
      this.#untold = true
    }
  }

  async #one(id: string, at: number): Promise<void> {
    const { room, reauthorization } = this.#of
    // What this node ends itself is in the news too: whoever asked for it is told what was cut, so they cut first.
    await inTurn(reauthorization, id, async () => {
      const grant = await room.grants.find(id)
      if (grant === undefined) return
      await reauthorization.withdraw(touchedBy(grant), {
        trigger: 'grant',
        at,
        ...(grant.ended === null ? {} : { by: grant.ended.by }),
        ...(grant.state === 'spent' ? { reason: 'grant_burned' as const } : {}),
      })
    })
  }

  /** What is in quarantine carries nothing, what must answer may have changed, and its certificates may have ended. */
  async #on(devices: ReadonlySet<string>, at: number): Promise<void> {
    const touches = ({ device }: { readonly device: string }) => devices.has(device)
    await this.#of.reauthorization.withdraw(touches, { trigger: 'device', at })
    await this.#of.endings(devices)
  }

  async #all(at: number, trigger: 'grant' | 'lock'): Promise<void> {
    await this.#of.reauthorization.withdraw(() => true, { trigger, at })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rounds[Symbol.asyncDispose]()
    await this.#telling
  }
}

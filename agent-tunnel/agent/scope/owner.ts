/**
 * Who answers a connection: the owner of the accepted socket, found by the reversed 4-tuple, with
 * facts that were the same before and after they were read. What may not be seen stays null; what
 * cannot be pinned down within the deadline is not observed at all. docs/process-scope.md.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { printEndpoint } from './address.ts'
import type { Endpoint, FourTuple, Reached } from './address.ts'
import { Executables, identify } from './executable.ts'
import { exposuresOf, machineOf } from './exposure.ts'
import type { Exposure } from './exposure.ts'
import { findHolders, holdersAmong, holdsSockets, Slice, startTicksOf } from './holders.ts'
import type { Holder, Holders } from './holders.ts'
import { findBound, findListeners } from './match.ts'
import type { Accepted } from './match.ts'
import { combine, sameFacts, unseen } from './observed.ts'
import type { Observed, ProcessFacts } from './observed.ts'
import { parseBootTime, parseUid, parseUnit } from './procfs.ts'
import { imageOf } from './image.ts'
import { scriptPath } from './script.ts'
import { Shared } from './shared.ts'
import type { SocketRow } from './procfs.ts'
import { Sockets } from './sockets.ts'
import { Usual } from './usual.ts'

/** Ticks per second in /proc/PID/stat: USER_HZ is 100 on every platform Node runs on under Linux. */
const TICKS_PER_SECOND = 100
/** Waits between looks at a socket nobody has accepted yet, the last one repeated; 0 is a turn of the loop. */
const POLL_MS = [0, 0, 1, 2, 5, 10, 20, 40]
/** The same where it is in no table: nothing is on its way then, and such a look reads them all. */
const ABSENT_POLL_MS = [1, 10, 40, 160]
/** From one process to the next, a socket may for a moment be in neither, or in both. */
const IN_PASSING_MS = 50
/** How long owners of an open connection may be on the move before that counts as another owner. */
const SETTLE_MS = 500
const SETTLE_POLL_MS = 10

/** One owner as it was seen, with what a later check compares. */
interface Sight {
  readonly holder: Holder
  readonly exeId: string | null
  readonly facts: ProcessFacts
}

/** Those that were found as they had been seen. */
type Still = ReadonlySet<Sight>

/** An observed connection: the facts to report, and what `recheck` needs to see whether they still hold. */
export interface Sighting {
  readonly observed: Observed
  readonly dialled: FourTuple
  /** The sockets whose owners they are. */
  readonly inodes: readonly number[]
  readonly sights: readonly Sight[]
  /**
   * Whether all processes were looked at. Otherwise the owner was found where owners were found
   * before; nothing may flow until a full `recheck` has shown that there is no other.
   */
  readonly complete: boolean
  /** Processes whose descriptors may not be read: among them there could be a further owner. */
  readonly unreadable: number
}

/** Why a connection could not be observed. */
export type Unobserved =
  /** Nobody accepted the connection before the deadline. Not by UDP. */
  | 'not_accepted'
  /** The other end is no socket of this machine's (this network namespace's) table. */
  | 'elsewhere'
  /** The owners kept changing, or were too many and too different to report. */
  | 'unsettled'

export type Observation =
  | { readonly ok: true; readonly sighting: Sighting }
  | { readonly ok: false; readonly why: Unobserved }

/** What a later look found: the same owner, nobody any more, or somebody else. */
export type Recheck =
  | { readonly state: 'same' }
  | { readonly state: 'closed' }
  | { readonly state: 'changed'; readonly sighting: Sighting | undefined }

export interface ScopeOptions {
  /** Mount point of procfs, default `/proc`. */
  readonly proc?: string
  /** Whether to ask sock_diag before reading tables; default: where `proc` is not given. */
  readonly diag?: boolean
}

/** Who listened, at the last full look. */
interface Listeners {
  readonly inodes: readonly number[]
  readonly sights: readonly Sight[]
  /** Every listening socket of the machine: while they are the same, what each program listens on is. */
  readonly machine: string
  readonly exposures: readonly Exposure[]
}

/** Looks at the processes of this machine. Holds no descriptor between calls, only hashes of executables. */
export class ProcessScope {
  readonly #proc: string
  /** What files hold, remembered by their identity. */
  readonly executables = new Executables()
  readonly #sockets: Sockets
  readonly #scan = new Shared<readonly number[], Holders>((asked) =>
    findHolders(this.#proc, new Set(asked.flat())),
  )
  readonly #still = new Shared<readonly Sight[], Still>((asked) => this.#lookAgain(asked.flat()))
  readonly #usual = new Usual()
  #listeners: Listeners | undefined
  /** Of the last complete look: processes that could not be read. */
  #unreadable = 0
  #bootTime: number | undefined

  constructor(options: ScopeOptions = {}) {
    this.#proc = options.proc ?? '/proc'
    this.#sockets = new Sockets(this.#proc, options.diag ?? options.proc === undefined)
  }

  /**
   * Finds who accepted the connection `dialled` (as this side sees it); by UDP, who holds the sockets
   * that get what is sent on it.
   *
   * Looks until the socket is accepted and its owners hold still, at most `deadlineMs`; `signal`
   * ends it early with an abort error. A socket that is accepted while none of its owners may be
   * seen gives an all-null observation.
   */
  async observeAccepted(
    dialled: FourTuple,
    deadlineMs: number,
    signal?: AbortSignal,
  ): Promise<Observation> {
    const ends = performance.now() + deadlineMs
    let why: Unobserved = 'elsewhere'
    let unownedSince: number | undefined
    for (let look = 0; ; look++) {
      signal?.throwIfAborted()
      const accepted = await this.#sockets.otherEnd(dialled)
      if (accepted.state === 'accepted') {
        const sighting =
          (await this.#sightFirst(dialled, accepted.inodes)) ??
          (await this.#sight(dialled, accepted.inodes, passed(unownedSince)))
        if (sighting !== undefined) return { ok: true, sighting }
        why = 'unsettled'
        unownedSince ??= performance.now()
      } else why = accepted.state === 'pending' ? 'not_accepted' : 'elsewhere'
      // Nothing is on its way: who is not bound is not there.
      if (why === 'elsewhere' && dialled.transport === 'udp') return { ok: false, why }
      const wait = waitAfter(accepted, look)
      if (performance.now() + wait >= ends) return { ok: false, why }
      await (wait === 0 ? turn() : sleep(wait, undefined, signal === undefined ? {} : { signal }))
    }
  }

  /**
   * Who listens for each of `targets` now, in their order, and what else they listen on. Without `full` it is enough that the sockets and their known owners are as
   * they were; who joined them is found by a full look.
   */
  async exposures(
    targets: readonly (Endpoint & Reached)[],
    full = true,
  ): Promise<readonly Exposure[]> {
    const listeners = await this.#sockets.listeners()
    const isUdpHere = (target: Endpoint & Reached) =>
      target.transport === 'udp' && this.#sockets.isHere(target)
    const bound = targets.map((target) => (isUdpHere(target) ? this.#bound(target) : []))
    const rows = [...listeners, ...bound.flat()]
    const inodesOf = targets.map((target, at) =>
      target.transport === 'udp'
        ? (bound[at] ?? []).map(({ inode }) => inode)
        : listenersOf(listeners, target, this.#sockets),
    )
    const inodes = inodesOf.flat()
    const machine = machineOf(rows)
    const before = this.#listeners
    if (!full && before !== undefined && sameMembers(before.inodes, inodes)) {
      if (await this.#holdsStill(before.sights)) {
        if (before.machine === machine) return before.exposures
        const exposures = await exposuresOf(this.#proc, rows, inodesOf, before.sights)
        this.#listeners = { ...before, machine, exposures }
        return exposures
      }
    }
    const { holders } = await this.#holders(inodes)
    const looked = await Promise.all(holders.map((holder) => this.#look(holder, 'listener')))
    const sights = looked.filter((sight) => sight !== undefined)
    const exposures = await exposuresOf(this.#proc, rows, inodesOf, sights)
    // Somebody who moved under the look is looked at again the next time.
    const whole = sights.length === holders.length
    this.#listeners = whole ? { inodes, sights, machine, exposures } : undefined
    return exposures
  }

  /** The UDP sockets that get a datagram of anybody's to `target`. */
  #bound(target: Endpoint): readonly SocketRow[] {
    const rows = this.#sockets.bound(target)
    const found = findBound(rows, { remote: target })
    return rows.filter(({ inode }) => found.state === 'accepted' && found.inodes.includes(inode))
  }

  /**
   * Whether what is sent on `sighting`'s UDP socket still goes to the sockets that were looked at, and
   * to no other: a look at the kernel's table and no process, before it returns. Undefined where they
   * are in another network namespace, which cannot be looked at so fast.
   */
  glance({ dialled, inodes }: Sighting): boolean | undefined {
    if (!this.#sockets.isHere(dialled.remote)) return undefined
    const now = this.#sockets.boundHere(dialled)
    return now.state === 'accepted' && sameMembers(now.inodes, inodes)
  }

  /** Processes whose descriptors could not be read at the last look at all of them, for lack of privilege. */
  get unreadable(): number {
    return this.#unreadable
  }

  /**
   * Whether the owner seen before still is the owner. The cheap look asks the kernel about the
   * processes already known; with `full`, or when that look fails, all processes are read again, so
   * that an owner who joined later is found too.
   */
  async recheck(sighting: Sighting, full = false): Promise<Recheck> {
    if (!full && (await this.#asBefore(sighting))) return { state: 'same' }
    const began = performance.now()
    for (;;) {
      const now = await this.#again(sighting)
      const waited = performance.now() - began
      // Between two programs, and at its end, a process may hold what it is about to let go of.
      const stands = now.state !== 'changed' || waited >= standsAfter(sighting, now.sighting)
      if (!stands) await sleep(SETTLE_POLL_MS)
      else {
        if (now.state === 'changed' && !sighting.complete && !alike(sighting, now.sighting))
          this.#usual.missed(targetOf(sighting.dialled))
        return now
      }
    }
  }

  /** One look at all processes. */
  async #again({ dialled, sights }: Sighting): Promise<Recheck> {
    const accepted = await this.#sockets.otherEnd(dialled)
    if (accepted.state !== 'accepted') return { state: 'closed' }
    const now = await this.#sight(dialled, accepted.inodes, true)
    if (now !== undefined && sameSights(sights, now.sights)) return { state: 'same' }
    if ((await this.#sockets.otherEnd(dialled)).state !== 'accepted') return { state: 'closed' }
    return { state: 'changed', sighting: now }
  }

  /** Who binds beside the known owner of a UDP port gets what is sent, without touching that owner. */
  async #asBefore({ dialled, inodes, sights }: Sighting): Promise<boolean> {
    if (dialled.transport === 'udp') {
      const now = await this.#sockets.otherEnd(dialled)
      if (now.state !== 'accepted' || !sameMembers(now.inodes, inodes)) return false
    }
    return this.#holdsStill(sights)
  }

  /** Who holds one of `inodes`, found by a scan that others may share. */
  async #holders(inodes: readonly number[]): Promise<Holders> {
    const { holders, unreadable } = await this.#scan.ask(inodes)
    this.#unreadable = unreadable
    const own = holders.map((holder) => ({
      ...holder,
      sockets: holder.sockets.filter(({ inode }) => inodes.includes(inode)),
    }))
    return { holders: own.filter(({ sockets }) => sockets.length > 0), unreadable }
  }

  /** Owners found where owners of this target were found before; undefined when there are none. */
  async #sightFirst(dialled: FourTuple, inodes: readonly number[]): Promise<Sighting | undefined> {
    const pids = this.#usual.first(targetOf(dialled))
    const holders = holdersAmong(this.#proc, pids, new Set(inodes))
    if (holders.length === 0) return undefined
    return this.#sightOf(dialled, inodes, holders, {
      complete: false,
      unreadable: this.#unreadable,
    })
  }

  /**
   * Owners of `inodes` among all processes, with facts that held still; undefined when they did not, or
   * are too many. `settle` says that an accepted socket without a visible owner is unseen rather than
   * in passing.
   */
  async #sight(
    dialled: FourTuple,
    inodes: readonly number[],
    settle: boolean,
  ): Promise<Sighting | undefined> {
    const { holders, unreadable } = await this.#holders(inodes)
    const how = { complete: true, unreadable }
    if (holders.length === 0) {
      const again = await this.#sockets.otherEnd(dialled)
      if (!settle || again.state !== 'accepted') return undefined
      return { observed: unseen('accepted'), dialled, inodes, sights: [], ...how }
    }
    this.#usual.found(
      targetOf(dialled),
      holders.map(({ pid }) => pid),
    )
    return this.#sightOf(dialled, inodes, holders, how)
  }

  async #sightOf(
    dialled: FourTuple,
    inodes: readonly number[],
    holders: readonly Holder[],
    how: Pick<Sighting, 'complete' | 'unreadable'>,
  ): Promise<Sighting | undefined> {
    const looked = await Promise.all(holders.map((holder) => this.#look(holder, 'accepted')))
    const sights = looked.filter((sight) => sight !== undefined)
    if (sights.length < looked.length) return undefined
    const again = await this.#sockets.otherEnd(dialled)
    if (again.state !== 'accepted' || !sameMembers(again.inodes, inodes)) return undefined
    const observed = combine(sights.map((sight) => sight.facts))
    return observed === undefined ? undefined : { observed, dialled, inodes, sights, ...how }
  }

  /** One owner's facts, or undefined when it let go, ended or ran another program meanwhile. */
  async #look(holder: Holder, phase: ProcessFacts['phase']): Promise<Sight | undefined> {
    const directory = `${this.#proc}/${holder.task}`
    const exe = await this.executables.look(`${directory}/exe`)
    if (exe.id === null && hasEnded(`${directory}/exe`)) return undefined
    const facts: ProcessFacts = {
      phase,
      exe: exe.path,
      sha256: exe.sha256,
      script_sha256: await this.#script(holder, exe.path),
      uid: parsed(`${directory}/status`, parseUid),
      unit: parsed(`${directory}/cgroup`, parseUnit),
      image: parsed(`${directory}/cgroup`, (text) => imageOf(text, '/')),
      started_at: this.#startedAt(holder.startTicks),
      pid: holder.pid,
    }
    const sight = { holder, exeId: exe.id, facts }
    return (await this.#holdsStill([sight])) ? sight : undefined
  }

  async #script({ task }: Holder, exe: string | null): Promise<string | null> {
    const path = exe === null ? undefined : await scriptPath(this.#proc, task, exe)
    return path === undefined ? null : this.executables.content(path)
  }

  async #holdsStill(sights: readonly Sight[]): Promise<boolean> {
    const still = await this.#still.ask(sights)
    return sights.every((sight) => still.has(sight))
  }

  /** Which of `sights` hold: each process is asked about once, each descriptor by itself. */
  async #lookAgain(sights: readonly Sight[]): Promise<Still> {
    const still = new Set<Sight>()
    const tasks = new Map<string, { exeId: string | null; startTicks: number | undefined }>()
    const slice = new Slice()
    for (const sight of sights) {
      const { pid, startTicks, task } = sight.holder
      let known = tasks.get(task)
      if (known === undefined) {
        const exeId = await identify(`${this.#proc}/${task}/exe`)
        known = { exeId, startTicks: startTicksOf(this.#proc, pid) }
        tasks.set(task, known)
      }
      const same = known.exeId === sight.exeId && known.startTicks === startTicks
      if (same && holdsSockets(this.#proc, sight.holder)) still.add(sight)
      await slice.turn()
    }
    return still
  }

  #startedAt(ticks: number): number | null {
    this.#bootTime ??= parsed(`${this.#proc}/stat`, parseBootTime) ?? undefined
    return this.#bootTime === undefined
      ? null
      : this.#bootTime + Math.floor(ticks / TICKS_PER_SECOND)
  }
}

/** The name of what was dialled. */
function targetOf({ transport, remote }: FourTuple): string {
  return `${transport ?? 'tcp'}:${printEndpoint(remote)}`
}

/** How long to wait after the nth look, ms. */
function waitAfter({ state }: Accepted, look: number): number {
  const waits = state === 'absent' ? ABSENT_POLL_MS : POLL_MS
  return waits[Math.min(look, waits.length - 1)] ?? 0
}

/** How long a change of owners has to stand, ms: one that no declaration can tell, not at all. */
function standsAfter(before: Sighting, now: Sighting | undefined): number {
  if (now === undefined) return SETTLE_MS
  return alike(before, now) ? 0 : IN_PASSING_MS
}

/** Inodes of who listens for `target`; nobody here for an address of another network namespace. */
function listenersOf(
  rows: readonly SocketRow[],
  target: Endpoint,
  sockets: Sockets,
): readonly number[] {
  const found = findListeners(rows, target)
  return found.length > 0 && sockets.isHere(target) ? found : []
}

function alike(before: Sighting, now: Sighting | undefined): boolean {
  return now !== undefined && sameFacts(before.observed, now.observed)
}

/**
 * Whether the process of this /proc/PID/exe runs no program any more. The kernel takes the program
 * from one that ends before it closes its descriptors: it still holds a socket, and answers nothing.
 */
function hasEnded(link: string): boolean {
  try {
    readlinkSync(link)
    return false
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    return code === 'ENOENT' || code === 'ESRCH'
  }
}

/** Whether a socket has been without a visible owner for longer than handing it on takes. */
function passed(since: number | undefined): boolean {
  return since !== undefined && performance.now() - since >= IN_PASSING_MS
}

function parsed<T>(path: string, parse: (text: string) => T | undefined): T | null {
  try {
    return parse(readFileSync(path, 'latin1')) ?? null
  } catch {
    return null
  }
}

function sameMembers<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((member) => b.includes(member))
}

/** Same processes, same program: which descriptor they use is their own affair. */
function sameSights(a: readonly Sight[], b: readonly Sight[]): boolean {
  const names = (sights: readonly Sight[]) =>
    sights.map(({ holder, exeId }) => `${holder.pid}:${holder.startTicks}:${exeId}`)
  return sameMembers(names(a), names(b))
}

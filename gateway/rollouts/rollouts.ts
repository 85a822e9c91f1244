/**
 * The rollouts of a node: offers to devices that are connected, what they say of it, and what is due then. Everything is
 * recorded before it holds; a device is told that it was heard only after that. docs/updates.md "Rollouts".
 */
import type { AuditLog } from '#audit'
import type { Clock } from '#tunnel'
import type { DeviceStore } from '../devices/device.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import type { RolledAgents } from './agents.ts'
import { ACTS, mayGoOn, standing, unknown, updateOf } from './asked.ts'
import type { By, NewRollout } from './asked.ts'
import { changeOf, stepOf } from './recorded.ts'
import { chosenOf, counts, follows, isLost, isOver, meets, turnOf } from './rollout.ts'
import type { DeviceUpdate, Rollout, RolloutPlace, RolloutStore } from './rollout.ts'
import { changesOf, hasOf, isBack, isLeft, orHadAlready, waitsAgain } from './said.ts'
import type { Listening, Said } from './said.ts'

export interface RolloutRoom {
  readonly store: RolloutStore
  readonly devices: Pick<DeviceStore, 'list'>
  readonly agents: RolledAgents
  readonly log: Pick<AuditLog, 'append'>
  readonly clock: Clock
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

const LOOK_MS = 5000
const SOON_MS = 50

export class Rollouts implements Disposable {
  readonly #room: RolloutRoom
  /** Since when devices could be heard here, epoch seconds. */
  readonly #since: number
  readonly #listening = new Map<string, { readonly to: Listening; readonly said: Said }>()
  /** Whose tunnel has ended; what they said before that may still wait for its turn. */
  readonly #gone = new WeakSet<Listening>()
  /** One thing after the other: what is read here is what is changed. */
  #turn: Promise<unknown> = Promise.resolve()
  #cancel: () => void = () => {}
  #cancelSoon: (() => void) | undefined
  #stopped = false

  constructor(room: RolloutRoom) {
    this.#room = room
    this.#since = Math.floor(room.now() / 1000)
    this.#wait()
  }

  [Symbol.dispose](): void {
    this.#stopped = true
    this.#cancel()
    this.#cancelSoon?.()
  }

  #wait(): void {
    this.#cancel = this.#room.clock.after(LOOK_MS, () => {
      if (this.#stopped) return
      this.#lookNow()
      this.#wait()
    })
  }

  /** The newest first, behind `after`. */
  list(limit: number, after?: RolloutPlace): Promise<readonly Rollout[]> {
    return this.#room.store.listRollouts(limit, after)
  }

  /** Throws Refusal `rollout.unknown`. */
  async find(id: string): Promise<Rollout> {
    const rollout = await this.#room.store.findRollout(id)
    if (rollout === undefined) throw unknown(id)
    return rollout
  }

  /** Whether it is in a state in which that act changes something. */
  async takes(id: string, act: keyof typeof ACTS): Promise<boolean> {
    const rollout = await this.#room.store.findRollout(id)
    return rollout !== undefined && ACTS[act].from.includes(rollout.state)
  }

  /** What became of it on devices, by their names, behind `after`. */
  updates(id: string, limit: number, after?: string): Promise<readonly DeviceUpdate[]> {
    return this.#room.store.listUpdates(id, limit, after)
  }

  /**
   * Begins a rollout of `bundle`; whether a device takes it, the device decides. Throws Refusal `rollout.manifest`,
   * `rollout.agent`, `rollout.stages`, `rollout.standing`, and `log.unavailable` through the log.
   */
  start(asked: NewRollout, bundle: Uint8Array, by: By): Promise<Rollout> {
    return this.#alone(async () => {
      const { store, agents, now } = this.#room
      const at = Math.floor(now() / 1000)
      const update = updateOf(asked.manifest, bundle, at)
      const { stages } = asked
      if (stages.some((share, nth) => share <= (stages[nth - 1] ?? 0)))
        throw new Refusal('rollout.stages', 'the shares do not rise', {
          nextStep: 'write them as 5,25,100',
        })
      const { version, sha256, health, notAfter } = update
      const rollout: Rollout = {
        ...asked,
        id: newId('o'),
        version,
        sha256,
        health,
        not_after: notAfter,
        stage: 0,
        stage_at: at,
        state: 'running',
        by: by.subject.id,
        at,
      }
      const open = await store.openRollouts()
      if (open.some((other) => meets(other, rollout))) throw standing()
      agents.keep(
        sha256,
        bundle,
        open.map((other) => other.sha256),
      )
      await this.#record(rollout, `rollout of ${version} starts`, 'start', by)
      if (!(await store.addRollout(rollout))) throw standing()
      await this.#goOnOrReport(rollout)
      return await this.find(rollout.id)
    })
  }

  /**
   * Holds it, lets it go on, or ends it, as a person says. What failed before it goes on does not count again. Gives what
   * it then is. Throws Refusal `rollout.unknown`, `rollout.state`, the latter also for going on with what is not taken any more.
   */
  change(id: string, act: 'pause' | 'resume' | 'abort', reason: string, by: By): Promise<Rollout> {
    return this.#alone(async () => {
      const { store } = this.#room
      const before = await this.find(id)
      const { from, to } = ACTS[act]
      if (!from.includes(before.state))
        throw new Refusal('rollout.state', `the rollout is ${before.state}`, {
          nextStep: 'see `sallyport rollout status`',
        })
      if (to === 'running') mayGoOn(before, Math.floor(this.#room.now() / 1000))
      await this.#record({ ...before, reason }, `rollout of ${before.version}: ${act}`, act, by)
      if (to === 'running') await this.#excuse(id)
      const resumed = to === 'running' ? { resumed_at: Math.floor(this.#room.now() / 1000) } : {}
      const after = await store.changeRollout(id, from, { state: to, reason, ...resumed })
      if (after === undefined) throw unknown(id)
      if (to === 'running') await this.#goOnOrReport(after)
      else this.#withdraw(after)
      return await this.find(id)
    })
  }

  async #excuse(id: string): Promise<void> {
    const { store } = this.#room
    for (const update of (await store.updatesOf(id)).filter(counts))
      await store.putUpdate({ ...update, excused: true })
  }

  /** Takes what a connected device says; gives it what is due. Rejects where that cannot be recorded: it is not heard then. */
  heard(to: Listening, said: Said): Promise<void> {
    return this.#alone(async () => {
      if (!this.#gone.has(to)) this.#listening.set(to.device, { to, said })
      const { store } = this.#room
      await this.#notBusy(to.device, said)
      for (const one of changesOf(said)) {
        const rollout = await store.findRollout(one.rollout)
        if (isLeft(one, rollout)) {
          to.say({ type: 'update', act: 'withdraw', rollout: one.rollout })
          // Of what is over nobody looks for it again: as it was when that ended, so it stays.
          if (one.state === 'starting' || rollout?.state !== 'paused') continue
        }
        if (rollout !== undefined)
          await this.#note(rollout, to.device, orHadAlready(one, rollout, said))
        if (one.heard) to.say({ type: 'update', act: 'heard', rollout: one.rollout })
      }
    }).then(() => this.#soon())
  }

  /** What it was taking when it was last heard of, and is not any more; one that was lost so may have it again. */
  async #notBusy(device: string, said: Said): Promise<void> {
    const { store } = this.#room
    const about = new Set(changesOf(said).map(({ rollout }) => rollout))
    for (const rollout of await store.openRollouts()) {
      const update = await store.findUpdate(rollout.id, device)
      if (update === undefined) continue
      const spoken = about.has(rollout.id)
      if (update.state === 'lost' && !spoken)
        await this.#note(rollout, device, { state: 'offered', code: null })
      const next = spoken ? waitsAgain(update, said) : isBack(update)
      if (next !== undefined) await store.putUpdate(next)
    }
  }

  /** What many devices say at about the same time is looked at once. */
  #soon(): void {
    this.#cancelSoon ??= this.#room.clock.after(SOON_MS, () => {
      this.#cancelSoon = undefined
      if (!this.#stopped) this.#lookNow()
    })
  }

  #lookNow(): void {
    this.look().catch((error: unknown) => this.#room.report(error, 'rollouts cannot go on'))
  }

  /** The device has no tunnel any more. */
  left(to: Listening): void {
    this.#gone.add(to)
    if (this.#listening.get(to.device)?.to === to) this.#listening.delete(to.device)
  }

  /** Does what is due of itself, for every rollout that runs. */
  look(): Promise<void> {
    return this.#alone(async () => {
      for (const rollout of await this.#room.store.openRollouts())
        if (rollout.state === 'running') await this.#goOn(rollout)
    })
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work)
    this.#turn = mine.catch(() => undefined)
    return mine
  }

  /** Keeps what a device came to, where that is news; recorded first. */
  async #note(
    rollout: Rollout,
    device: string,
    { state, code, idle, announces }: Pick<DeviceUpdate, 'state' | 'code' | 'idle' | 'announces'>,
  ): Promise<void> {
    const { store, log, now } = this.#room
    const at = Math.floor(now() / 1000)
    const gave = idle === undefined ? {} : { idle }
    const says = announces === undefined ? {} : { announces }
    const before = await store.findUpdate(rollout.id, device)
    const has = hasOf(this.#listening.get(device)?.said ?? before)
    const news = { state, code, at, ...gave, ...says, ...has }
    const next: DeviceUpdate = { rollout: rollout.id, device, ...news }
    if (!follows(before, next)) return
    if (before?.state === state && before.code === code && isOver(before)) return
    if (before?.state !== state) await log.append(stepOf(rollout, next))
    await store.putUpdate(next)
  }

  /** After an act that is done: where going on fails now it is due at the next look, and the act is no less done. */
  async #goOnOrReport(rollout: Rollout): Promise<void> {
    try {
      await this.#goOn(rollout)
    } catch (error) {
      this.#room.report(error, `rollout ${rollout.id} cannot go on`)
    }
  }

  /** Takes its turn, then offers it to whom it is due. */
  async #goOn(before: Rollout): Promise<void> {
    const { store, now } = this.#room
    const seconds = Math.floor(now() / 1000)
    const registered = await this.#room.devices.list()
    const devices = registered.filter(
      ({ state, zone }) => state === 'active' && (before.zone === null || zone === before.zone),
    )
    await this.#loseSight(before, seconds)
    const updates = new Map((await store.updatesOf(before.id)).map((one) => [one.device, one]))
    const connected = new Set(this.#listening.keys())
    const turn = turnOf(before, { devices, connected, updates, now: seconds })
    const rollout = await this.#take(before, turn, seconds)
    if (rollout?.state !== 'running') return
    for (const { id } of chosenOf(rollout, devices, updates))
      await this.#offer(rollout, id, updates.get(id), seconds)
    if (turn.type === 'stage') await this.#goOn(rollout)
  }

  /** Offers it to a device that is here and has not got it; once a second at most. */
  async #offer(
    rollout: Rollout,
    device: string,
    update: DeviceUpdate | undefined,
    seconds: number,
  ): Promise<void> {
    const listening = this.#listening.get(device)
    if (listening === undefined) return
    const { taking, trial } = listening.said
    if (taking !== null || trial !== null) return
    if (update !== undefined && (isOver(update) || update.at === seconds)) return
    const gave = update?.idle === undefined ? {} : { idle: update.idle }
    await this.#note(rollout, device, { state: update?.state ?? 'offered', code: null, ...gave })
    const { id, manifest } = rollout
    listening.to.say({ type: 'update', act: 'offer', rollout: id, manifest })
  }

  /** Devices that were in it and have been gone for too long. */
  async #loseSight(rollout: Rollout, seconds: number): Promise<void> {
    for (const update of await this.#room.store.updatesOf(rollout.id)) {
      if (this.#listening.has(update.device)) continue
      if (isLost(rollout, update, this.#since, seconds))
        await this.#note(rollout, update.device, { state: 'lost', code: 'update.lost' })
    }
  }

  async #take(
    rollout: Rollout,
    turn: ReturnType<typeof turnOf>,
    seconds: number,
  ): Promise<Rollout | undefined> {
    const { id, version, stage, stages } = rollout
    const change = async (
      says: string,
      act: string,
      to: Parameters<RolloutStore['changeRollout']>[2],
    ) => {
      const reason = to.reason ?? says
      await this.#record({ ...rollout, ...to, reason }, `rollout of ${version}: ${says}`, act)
      return await this.#room.store.changeRollout(id, ['running'], { ...to, reason })
    }
    switch (turn.type) {
      case 'stay':
        return rollout
      case 'stage':
        return await change(`from ${stages[stage]} to ${stages[stage + 1]} %`, 'stage', {
          stage: stage + 1,
          stage_at: seconds,
        })
      case 'done':
        return await change('everybody has answered', 'done', { state: 'done' })
      case 'pause': {
        const after = await change('paused by itself', 'pause', {
          state: 'paused',
          reason: turn.reason,
        })
        if (after !== undefined) this.#withdraw(after)
        return after
      }
    }
  }

  /** Who has not started it yet leaves it. */
  #withdraw({ id }: Rollout): void {
    for (const { to, said } of this.#listening.values())
      if (said.taking === id) to.say({ type: 'update', act: 'withdraw', rollout: id })
  }

  async #record(rollout: Rollout, message: string, act: string, by?: By): Promise<void> {
    await this.#room.log.append(changeOf(rollout, message, act, by))
  }
}

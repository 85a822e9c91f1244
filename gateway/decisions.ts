/** Asking policy: where and when we are is the same in every question, the rest is the caller's. */
import { CATALOGUE, inputFor } from '#policy'
import type { Decision, Denial, HostCode, Input, Partially, Point, PolicyEngine } from '#policy'
import { timeFacts, type Place } from './facts.ts'
import { newId } from './ids.ts'
import type { Locks } from './locks/locks.ts'
import { JournalError, type DecisionJournal, type Ticket } from './policy/journal.ts'
import type { Trial } from './policy/trial.ts'
import { denied, type Refusal } from './problem.ts'

/** A decision as events carry it. */
export interface DecisionRef {
  readonly id: string
  readonly revision: string
  readonly codes: readonly string[]
}

export class Decisions {
  readonly #engine: PolicyEngine
  readonly #place: Place
  readonly #now: () => number
  /** A candidate beside the policy in force, while there is one. */
  trial: Pick<Trial, 'answer'> | undefined
  /** Who and what is shut out; nothing where there are none. */
  locks: Pick<Locks, 'on' | 'round'> | undefined
  #second: Input['time'] | undefined
  readonly #journal: Pick<DecisionJournal, 'add' | 'settled'> | undefined
  /** What the log took; a decision that is not in here was dropped. */
  readonly #tickets = new WeakMap<Decision, Ticket>()

  constructor(
    engine: PolicyEngine,
    place: Place,
    now: () => number,
    journal?: Pick<DecisionJournal, 'add' | 'settled'>,
  ) {
    this.#engine = engine
    this.#place = place
    this.#now = now
    this.#journal = journal
  }

  /** Never throws: what cannot be decided is denied, with a code. */
  ask(point: Point, facts: Partially<Input>): Decision {
    const at = this.#now()
    const input = this.question(point, facts, at)
    const given = this.#engine.decide(point, input, { decisionId: newId('d') })
    const decision = this.trial?.answer(point, input, given) ?? given
    const ticket = this.#journal?.add({ point, input, decision, at })
    if (ticket !== undefined) this.#tickets.set(decision, ticket)
    return decision
  }

  /** Gives what says whether another policy answers since: for whoever does something else between an answer and acting on it. */
  changes(): () => boolean {
    const [digest, trial] = [this.#engine.status().bundle_digest, this.trial]
    return () => this.#engine.status().bundle_digest !== digest || this.trial !== trial
  }

  /** Gives what says whether a question might be answered otherwise since: by another policy, or for a lock put on or lifted. */
  answersAnew(): () => boolean {
    const [changed, round] = [this.changes(), this.locks?.round]
    return () => this.locks?.round !== round || changed()
  }

  /** The answer to a question that nobody acts on: it is decided like any other, and not recorded. */
  weigh(point: Point, facts: Partially<Input>): Decision {
    const input = this.question(point, facts, this.#now())
    return this.#engine.decide(point, input, { decisionId: newId('d') })
  }

  /** The whole input of a question at a time (epoch milliseconds), for whoever asks another engine. */
  question(point: Point, facts: Partially<Input>, at: number): Input {
    const { tenant, gateway, site, timezone } = this.#place
    return inputFor(point, {
      tenant,
      gateway: { id: gateway, site },
      time: this.#time(at, timezone),
      ...facts,
      locks: this.locks?.on(facts) ?? [],
    })
  }

  /** A second's wall clock is worked out once: in a storm of decisions it costs as much as deciding. */
  #time(at: number, timezone: string): Input['time'] {
    const second = Math.floor(at / 1000)
    if (this.#second?.epoch_s !== second) this.#second = timeFacts(at, timezone)
    return this.#second
  }

  /** The zones that policy knows, in order; undefined where there is no policy. */
  zones(): readonly string[] | undefined {
    return this.#engine.zones()
  }

  /** What the site tells people to do about a code, where it says something of its own. */
  nextStep(code: string): string | undefined {
    return this.#engine.nextStep(code)
  }

  /** Resolves when this very decision is on disk. Throws JournalError where it is not and cannot be. */
  async recorded(decision: Decision): Promise<void> {
    if (this.#journal === undefined) return
    const ticket = this.#tickets.get(decision)
    if (ticket === undefined) throw new JournalError('the decision log did not take the decision')
    await this.#journal.settled(ticket)
  }

  /** The answer where an invariant of ours is broken, so that policy is not asked. */
  refuse(code: HostCode): Decision {
    return this.#engine.refuse(code, { decisionId: newId('d') })
  }
}

export function refOf(decision: Decision): DecisionRef {
  const codes = decision.allow ? decision.reasons : decision.denials
  return {
    id: decision.decision_id,
    revision: decision.revision ?? 'none',
    codes: codes.map(({ code }) => code),
  }
}

/** What a person can do about a denial: what the site says, where its bundle does, else the product. */
export function nextStepOf({ code, next }: Pick<Denial, 'code' | 'next'>): string | undefined {
  if (next !== undefined) return next
  return Object.hasOwn(CATALOGUE, code) ? CATALOGUE[code as keyof typeof CATALOGUE].next : undefined
}

/** A decision that says no, as the refusal of the request it was asked for. */
export function toRefusal(decision: Decision): Refusal {
  return denied(decision, nextStepOf)
}

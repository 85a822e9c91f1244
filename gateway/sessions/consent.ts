/**
 * Consent of the people at a device before a session begins, where policy asks for it. Policy is asked first: nobody at a
 * device is disturbed for what is refused anyway. The question bears the id that the session will have, and
 * stands while its person comes back for the answer; an answer opens one session, or none once it is too old.
 */
import type { Input } from '#policy'
import { streamKindOf } from '../devices/device.ts'
import { expiresAt, type Grant } from '../grants/grant.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import { dialDevice, saidBy } from './dial.ts'
import type { SessionRoom, Target } from './room.ts'
import { encode } from './signed.ts'

/** As policy reads it. */
export type Consent = NonNullable<NonNullable<Input['device']>['consent']>

/** A yes, and what takes it, to open a session or because it counts no more: false where that was done already. */
export interface Agreed {
  readonly session: string
  readonly consent: Consent
  readonly take: () => boolean
}

/** One person asking for one process under one grant. */
interface Question {
  readonly session: string
  /** Epoch milliseconds. */
  readonly until: number
}

/** Questions that stand, at all devices; beyond that the oldest is forgotten, and asked anew by whoever comes back for it. */
const MOST = 4096

export class Questions {
  readonly #standing = new Map<string, Question>()

  /** The question of that name that stands at `now`, or a new one until `until`, both epoch milliseconds. */
  of(name: string, until: number, now: number): Question {
    const known = this.#standing.get(name)
    if (known !== undefined && known.until > now) return known
    this.#standing.delete(name)
    const [oldest] = this.#standing.size < MOST ? [] : this.#standing.keys()
    if (oldest !== undefined) this.#standing.delete(oldest)
    const question = { session: newId('s'), until }
    this.#standing.set(name, question)
    return question
  }

  /** It is answered, and asked anew the next time. False where somebody else had that answer. */
  settle(name: string, question: Question): boolean {
    return this.#standing.get(name) === question && this.#standing.delete(name)
  }
}

/** So long an answer is remembered at the device unless the session lasts longer. */
const DAY_MS = 86_400_000
/** What ends a question without a yes. Whatever else a device refuses with says nothing of its people: they may be at it. */
const ENDING: ReadonlySet<string> = new Set([
  'owner.denied',
  'owner.silent',
  'owner.busy',
  'owner.unasked',
  'open.metadata',
])

/**
 * Asks the people at the device of `target` whether `subject` may come in under `grant`. Resolves with their yes. Throws
 * Refusal: `target.refused` with `owner.asked` while nobody has answered, `owner.denied`, `owner.silent`, `owner.busy`,
 * `owner.unasked`, or what else the agent says; `device.offline`. Where nobody has answered yet the question stands.
 */
export async function askOwner(
  room: Pick<SessionRoom, 'questions' | 'stands' | 'now'>,
  subject: Pick<Subject, 'id' | 'email'>,
  target: Target,
  grant: Grant,
): Promise<Agreed> {
  const { device, process } = target
  const name = JSON.stringify([subject.id, device.id, process.id, grant.statement.id])
  const until = Math.min(expiresAt(grant) * 1000, room.now() + DAY_MS)
  const question = room.questions.of(name, until, room.now())
  const metadata = encode({
    v: 1,
    session: question.session,
    process: process.id,
    who: subject.email,
    remaining_ms: Math.max(0, Math.round(question.until - room.now())),
    // Of an agent that does not know it: it refuses, and dials nothing.
    protocol: 'consent',
  })
  try {
    const stream = await dialDevice(room, target, streamKindOf(process.kind), metadata)
    stream.reset('session.answered')
    const consent = heard(saidBy(stream).consent, room.now())
    if (consent === null) throw unable()
    const take = () => room.questions.settle(name, question)
    return { session: question.session, consent, take }
  } catch (error) {
    if (!(error instanceof Refusal) || error.code !== 'target.refused') throw error
    if (ENDING.has(error.shownCode)) room.questions.settle(name, question)
    throw error.shownCode === 'open.metadata' ? unable(error) : error
  }
}

/** What a device says of a yes, at `now` (epoch milliseconds): no later than now, however far ahead its clock is. */
export function heard(
  said: { readonly by: string; readonly at: number } | undefined,
  now: number,
): Consent | null {
  return said === undefined ? null : { by: said.by, at: Math.min(said.at, Math.floor(now / 1000)) }
}

function unable(cause?: unknown): Refusal {
  const msg = 'the agent on the device cannot ask the people there: it is of an older version'
  return new Refusal('target.refused', msg, {
    nextStep: 'ask the plant to install the agent of this version there',
    denials: [{ code: 'owner.unasked', msg }],
    cause,
  })
}

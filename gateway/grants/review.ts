/** What comes after a broken seal: somebody who did not use it says what happened, and until then it is not over. */
import type { AuditLog } from '#audit'
import { actorOf, srcOf } from '../events.ts'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { Refusal } from '../problem.ts'
import { Rounds } from '../rounds.ts'
import type { Grant } from './grant.ts'
import type { GrantRoom } from './request.ts'
import { inTurn } from './turn.ts'

/** So long after a seal was broken its review is due. */
export const REVIEW_S = 3 * 86_400

/** The review of one broken seal. Instants are epoch seconds. */
export interface Review {
  /** The grant that broke the seal. */
  readonly grant: string
  readonly opened_at: number
  readonly due_at: number
  /** Whether it was said that it is due. */
  readonly reminded: boolean
  readonly closed: { readonly at: number; readonly by: string; readonly note: string } | null
}

/** Where a review stands in the list: what is open by when it is due, what is closed by when that was. */
export type ReviewPlace = readonly [closed: 0 | 1, order: number, grant: string]

export function placeOf({ grant, due_at, closed }: Review): ReviewPlace {
  return closed === null ? [0, due_at, grant] : [1, -closed.at, grant]
}

/** What reviews need of a store. Every method resolves when the change is durable; a review begins with the approval that breaks the seal. */
export interface ReviewStore {
  findReview(grant: string): Promise<Review | undefined>
  /** First those that are not closed, what is due first; then the newest that are. At most `limit`, behind `after`. */
  listReviews(limit: number, after?: ReviewPlace): Promise<readonly Review[]>
  /** Undefined where there is none, or it is closed already. */
  closeReview(grant: string, closed: NonNullable<Review['closed']>): Promise<Review | undefined>
  markReminded(grant: string): Promise<void>
}

interface ReviewAsk {
  readonly subject: Subject
  readonly source: Source
  readonly grant: Grant
  readonly note: string
}

/**
 * Closes the review of a broken seal, recorded first. The caller has decided that this person may end grants. Throws
 * Refusal: `grant.state` (there is none, or it is closed), `grant.person` (whoever asks held the grant, by this or another
 * account, or is no staff), `log.unavailable`.
 */
export async function closeReview(
  room: GrantRoom & { readonly reviews: ReviewStore },
  { subject, source, grant, note }: ReviewAsk,
): Promise<Review> {
  const { id, requester, devices } = grant.statement
  return await inTurn(room.store, id, async () => {
    const review = await room.reviews.findReview(id)
    if (review === undefined || review.closed !== null)
      throw new Refusal(
        'grant.state',
        review === undefined ? 'no seal was broken by this grant' : 'its review is closed already',
      )
    const [holder, reviewer] = await Promise.all([requester, subject.id].map(room.personOf))
    if (holder === reviewer || subject.party !== 'staff')
      throw new Refusal('grant.person', 'who was inside does not say that all was well', {
        nextStep: 'somebody else of the staff closes the review',
      })
    await room.log.append({
      code: 'finding.break_glass',
      message: `the review of a broken seal is closed: ${note}`,
      status: 'success',
      actor: actorOf(subject),
      src: srcOf(source),
      device: devices.join(','),
      grant: id,
      data: {
        finding: 'break_glass.reviewed',
        title: 'the review of a broken seal is closed',
        detail: { note },
      },
    })
    const at = Math.floor(room.now() / 1000)
    const after = await room.reviews.closeReview(id, { at, by: subject.id, note })
    if (after === undefined) throw new Refusal('grant.state', 'its review was closed meanwhile')
    return after
  })
}

/** How it stands with broken seals, for whoever runs the node. */
export interface GlassHealth {
  /** Reviews that nobody has closed, and of these, those that are overdue. */
  readonly reviews_open: number
  readonly reviews_overdue: number
}

/** So many open reviews are looked at; more is a number that nobody needs exactly. */
const MOST_OPEN = 500
const LOOK_MS = 30_000

interface Watching {
  readonly log: Pick<AuditLog, 'append'>
  readonly reviews: ReviewStore
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

/** Says of every review that is due, once, on disk; counts them. Looks at once, then twice a minute. */
export class ReviewWatch implements AsyncDisposable {
  readonly #room: Watching
  #health: GlassHealth = { reviews_open: 0, reviews_overdue: 0 }
  #counting: Promise<void> = Promise.resolve()
  readonly #rounds: Rounds

  constructor(room: Watching) {
    this.#room = room
    this.#rounds = new Rounds(async () => {
      await this.refresh()
      return LOOK_MS
    })
  }

  health(): GlassHealth {
    return this.#health
  }

  /** Counts anew at once: a seal was broken, or a review closed. */
  async refresh(): Promise<void> {
    // One after the other: two side by side would both find that it was not said yet.
    this.#counting = this.#counting.then(async () => {
      await recordDue(this.#room).then(
        (health) => (this.#health = health),
        (error: unknown) => this.#room.report(error, 'which reviews are due could not be told'),
      )
    })
    await this.#counting
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rounds[Symbol.asyncDispose]()
  }
}

/** Records of each review that is due by now that it is, once, and gives how many are open. Rejects with what log or store throw. */
export async function recordDue({
  log,
  reviews,
  now,
}: Omit<Watching, 'report'>): Promise<GlassHealth> {
  const open = (await reviews.listReviews(MOST_OPEN)).filter(({ closed }) => closed === null)
  const overdue = open.filter(({ due_at: at }) => at * 1000 <= now())
  for (const review of overdue.filter(({ reminded }) => !reminded)) {
    await log.append({
      code: 'finding.break_glass',
      message: 'the review of a broken seal is due, and nobody has closed it',
      status: 'failure',
      grant: review.grant,
      data: {
        finding: 'break_glass.review_due',
        title: 'the review of a broken seal is due',
        detail: { opened_at: review.opened_at, due_at: review.due_at },
      },
    })
    await reviews.markReminded(review.grant)
  }
  return { reviews_open: open.length, reviews_overdue: overdue.length }
}

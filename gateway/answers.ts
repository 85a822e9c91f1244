/** Answers of writes that may be sent again, as a store keeps them: names and fingerprints are digests, bodies hold no secret. */

export interface Kept {
  readonly status: number
  /** JSON; null: it is told once. */
  readonly body: string | null
}

export type Claimed =
  /** It is the first, and is now begun. */
  | { readonly outcome: 'claimed' }
  /** The name stands for another call. */
  | { readonly outcome: 'other' }
  /** It was begun and has no answer yet; `elsewhere`: another gateway may be doing it now. */
  | { readonly outcome: 'begun'; readonly elsewhere: boolean }
  | { readonly outcome: 'done'; readonly kept: Kept }
  | { readonly outcome: 'full' }

export interface Claim {
  /** SHA-256 of who sends it and their key. */
  readonly name: string
  /** Of the call and its body. */
  readonly print: string
  /** SHA-256 of who sends it. */
  readonly owner: string
  /** Epoch milliseconds: now, and until when it is kept. */
  readonly at: number
  readonly until: number
  readonly most: { readonly own: number; readonly all: number }
}

/** Every method is one durable transaction. */
export interface AnswerStore {
  /** Of many at once with one name exactly one is told `claimed`. */
  claim(claim: Claim): Promise<Claimed>
  /** Of what is begun; what is answered stays so. */
  finish(name: string, kept: Kept): Promise<void>
  /** Forgets one that is begun. */
  release(name: string): Promise<void>
}

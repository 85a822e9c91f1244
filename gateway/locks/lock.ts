/**
 * A lock: somebody, something or everything is shut out, now and until a person lifts it. What a lock touches is told
 * here, from the facts of a question; that it denies is the policy's to say.
 */
import type { Input, Partially } from '#policy'

/** What a lock may be put on, and how policy calls that scope. */
export const SCOPES = {
  identity: 'subject',
  company: 'vendor',
  device: 'device',
  process: 'device',
  zone: 'site',
  everything: 'all',
} as const satisfies Record<string, NonNullable<Input['locks'][number]['scope']>>
export type LockScope = keyof typeof SCOPES

/** Instants are epoch seconds. */
export interface Lock {
  readonly id: string
  readonly scope: LockScope
  /** `<iss>|<sub>`, a company, a device, `device/process`, a zone; `*` for everything. */
  readonly target: string
  readonly reason: string
  readonly by: string
  readonly by_email: string | null
  readonly at: number
  readonly lifted: { readonly at: number; readonly by: string; readonly reason: string } | null
}

/** Of whom and what a question is; null where it is of nobody or nothing. */
export interface Touched {
  readonly subject: string | null
  readonly company: string | null
  readonly device: string | null
  readonly process: string | null
  readonly zone: string | null
}

/**
 * The same, of the facts of a question to policy: of whoever asks and what they ask about; where a grant is asked for
 * or approved, of each of its processes, and of whom it would let in.
 */
export function touchedBy({
  subject,
  device,
  process,
  request,
  approval,
}: Partially<Input>): readonly Touched[] {
  const asks: Touched = {
    subject: subject?.id ?? null,
    company: subject?.vendor ?? null,
    device: device?.id ?? null,
    process: process?.id ?? null,
    zone: device?.zone ?? null,
  }
  const grant = approval?.grant
  const people = [grant?.requester, grant?.subject]
    .filter((id) => typeof id === 'string')
    .map((id) => ({ ...asks, subject: id, company: grant?.vendor ?? null }))
  const processes = [...(request?.processes ?? []), ...(grant?.processes ?? [])]
  return [asks, ...people, ...processes.map((id) => ({ ...asks, process: id }))]
}

const TOUCHES: Readonly<Record<LockScope, (target: string, of: Touched) => boolean>> = {
  identity: (target, { subject }) => target === subject,
  company: (target, { company }) => target === company,
  device: (target, { device }) => target === device,
  process: (target, { device, process }) =>
    device !== null && process !== null && target === `${device}/${process}`,
  zone: (target, { zone }) => target === zone,
  everything: () => true,
}

/** Whether the lock is on whom or what is asked about. */
export function touches({ scope, target }: Pick<Lock, 'scope' | 'target'>, of: Touched): boolean {
  return TOUCHES[scope](target, of)
}

/** What locks need of a store. Every method resolves when the change is durable. */
/** Where a lock stands in the list of all. */
export interface LockPlace {
  readonly lifted: boolean
  readonly at: number
  readonly id: string
}

export interface LockStore {
  /** False where there are `most` that are not lifted. */
  addLock(lock: Lock, most: number): Promise<boolean>
  findLock(id: string): Promise<Lock | undefined>
  /** Those that are not lifted, in the order in which the store came to have them, whatever the clocks said that put them on. */
  standingLocks(): Promise<readonly Lock[]>
  /** Those that stand, then those that were lifted, newest first; behind `after`, at most `limit`. */
  listLocks(limit: number, after?: LockPlace): Promise<readonly Lock[]>
  /** Undefined where there is none of this id, or it is lifted already. */
  liftLock(id: string, lifted: NonNullable<Lock['lifted']>): Promise<Lock | undefined>
}

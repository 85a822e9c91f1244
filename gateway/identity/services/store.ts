/** What is kept of service accounts; every method is one durable transaction. Instants are epoch milliseconds. */
import type { Party } from '../subject.ts'

export interface ServiceRow {
  /** `v_` and 26 characters; never used again. */
  readonly id: string
  /** Of those that stand no other has it. */
  readonly name: string
  readonly email: string
  readonly party: Party
  readonly vendor: string | null
  readonly roles: readonly string[]
  readonly groups: readonly string[]
  readonly scopes: readonly string[]
  /** RFC 7517, the public part. */
  readonly key: {
    readonly kty: 'EC'
    readonly crv: 'P-256'
    readonly x: string
    readonly y: string
  }
  /** RFC 7638. */
  readonly thumbprint: string
  readonly by: string
  readonly createdAt: number
  readonly expiresAt: number
  readonly revokedAt: number | null
  readonly usedAt: number | null
  /** Until when its newest token is good. */
  readonly tokenUntil: number
}

export interface ServiceStore {
  /** `exists`: one that stands at `now` has the name or the key; `full`: `most` stand. */
  addService(row: ServiceRow, most: number, now: number): Promise<'added' | 'exists' | 'full'>
  findService(id: string): Promise<ServiceRow | undefined>
  /** Newest first; of those that are past, a thousand are kept. */
  listServices(): Promise<readonly ServiceRow[]>
  /** False where there is none, or it was revoked before. */
  revokeService(id: string, at: number): Promise<boolean>
  /** A token was made at `at` that is good until `until`; false where the service does not stand then. */
  useService(id: string, at: number, until: number): Promise<boolean>
}

export function stands({ revokedAt, expiresAt }: ServiceRow, now: number): boolean {
  return revokedAt === null && expiresAt > now
}

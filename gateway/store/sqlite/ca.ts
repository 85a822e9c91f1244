/** The CA's store (ca/store.ts) in store.sqlite: tokens, certificates with their intentions, revocations. */
import type {
  CaStore,
  CertificateFilter,
  CertificateRow,
  CertificateState,
  CrlNumbers,
  Instant,
  Intention,
  KeyOwner,
  Rebinding,
  RecordOutcome,
  RevocationIntention,
  RevocationIntentions,
  RevocationReason,
  RevocationRow,
  RevocationTarget,
  TokenRow,
} from '#ca'
import type { SqliteThread } from './thread.ts'

/** What a row has beside its intention, until it has a certificate. */
const UNSIGNED = {
  state: 'intent',
  certificate: null,
  fingerprint: null,
  firstUsedAt: null,
  revokedAt: null,
  revocationReason: null,
} as const

/** The CA's store in store.sqlite. Rejects with StoreError; expected refusals are outcomes. */
export class SqliteCaStore implements CaStore, RevocationIntentions, CrlNumbers {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async addToken(token: TokenRow): Promise<void> {
    await this.#thread.call('ca', 'addToken', token)
  }
  async findToken(tenant: string, hash: string): Promise<TokenRow | undefined> {
    return await this.#thread.call('ca', 'findToken', { tenant, hash })
  }
  async listTokens(tenant: string, device?: string): Promise<readonly TokenRow[]> {
    return await this.#thread.call('ca', 'listTokens', { tenant, device: device ?? null })
  }
  async revokeToken(tenant: string, id: string, at: Instant): Promise<boolean> {
    return await this.#thread.call('ca', 'revokeToken', { tenant, id, at })
  }
  async rebindToken(tenant: string, id: string, terms: Rebinding): Promise<boolean> {
    return await this.#thread.call('ca', 'rebindToken', { tenant, id, ...terms })
  }
  async record(intention: Intention): Promise<RecordOutcome> {
    const outcome = await this.#thread.call('ca', 'record', intention)
    return outcome === 'fresh' ? { outcome, row: { ...intention, ...UNSIGNED } } : outcome
  }
  async complete(
    recorded: Intention,
    certificate: Uint8Array,
    fingerprint: string,
  ): Promise<CertificateRow> {
    const { serial } = recorded
    const state = await this.#thread.call('ca', 'complete', { serial, certificate, fingerprint })
    return state === 'active'
      ? { ...UNSIGNED, ...recorded, certificate, fingerprint, state }
      : state
  }
  async recall(key: string, at: Instant): Promise<CertificateRow | undefined> {
    return await this.#thread.call('ca', 'recall', { key, at })
  }
  async findCertificate(serial: string): Promise<CertificateRow | undefined> {
    return await this.#thread.call('ca', 'findCertificate', { serial })
  }
  async findByFingerprint(fingerprint: string): Promise<CertificateRow | undefined> {
    return await this.#thread.call('ca', 'findByFingerprint', { fingerprint })
  }
  async keyOwner(tenant: string, spkiSha256: string): Promise<KeyOwner | undefined> {
    return await this.#thread.call('ca', 'keyOwner', { tenant, spkiSha256 })
  }
  async listCertificates(
    tenant: string,
    filter: CertificateFilter = {},
  ): Promise<readonly CertificateRow[]> {
    return await this.#thread.call('ca', 'listCertificates', { tenant, filter })
  }
  async countCertificates(tenant: string): Promise<Readonly<Record<CertificateState, number>>> {
    return await this.#thread.call('ca', 'countCertificates', { tenant })
  }
  async openIntentions(tenant: string): Promise<readonly CertificateRow[]> {
    return await this.#thread.call('ca', 'openIntentions', { tenant })
  }
  /** The devices that may be connected to this gateway at `at`: it has given them a certificate that stands. */
  async certifiedDevices(tenant: string, at: Instant): Promise<ReadonlySet<string>> {
    return new Set(await this.#thread.call('ca', 'certifiedDevices', { tenant, at }))
  }
  async proven(serial: string, at: Instant): Promise<readonly string[]> {
    return await this.#thread.call('ca', 'proven', { serial, at })
  }
  async revoke(
    tenant: string,
    target: RevocationTarget,
    reason: RevocationReason,
    at: Instant,
  ): Promise<RevocationRow> {
    return await this.#thread.call('ca', 'revoke', { tenant, target, reason, at })
  }
  async intendRevocation(tenant: string, intention: RevocationIntention): Promise<number> {
    return await this.#thread.call('ca', 'intendRevocation', { tenant, ...intention })
  }
  async redeemRevocation(tenant: string, id: number): Promise<RevocationRow> {
    return await this.#thread.call('ca', 'redeemRevocation', { tenant, id })
  }
  async dropRevocation(tenant: string, id: number): Promise<void> {
    await this.#thread.call('ca', 'dropRevocation', { tenant, id })
  }
  async openRevocations(
    tenant: string,
  ): Promise<readonly (RevocationIntention & { readonly id: number })[]> {
    return await this.#thread.call('ca', 'openRevocations', { tenant })
  }
  async nextCrl(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<{ readonly number: number; readonly previous: Instant | null }> {
    return await this.#thread.call('ca', 'nextCrl', { tenant, issuer, at })
  }
  async revocationsSince(tenant: string, epoch: number): Promise<readonly RevocationRow[]> {
    return await this.#thread.call('ca', 'revocationsSince', { tenant, epoch })
  }
  async issuerRevocation(tenant: string, issuer: string): Promise<RevocationReason | undefined> {
    return await this.#thread.call('ca', 'issuerRevocation', { tenant, issuer })
  }
  async revokedCertificates(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<readonly CertificateRow[]> {
    return await this.#thread.call('ca', 'revokedCertificates', { tenant, issuer, at })
  }
}

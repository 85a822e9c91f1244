/** What `sallyport ca status` says: issuers, their ends, where each key is, and what an operator should do. */
import { createHash, X509Certificate } from 'node:crypto'
import { readDer, type CaRoom } from './room.ts'
import type { CaState, KeyPlace } from './state.ts'

export interface RootStatus {
  readonly subject: string
  readonly sha256: string
  readonly not_after: number
  readonly key: string
  readonly current: boolean
}
export interface IssuingStatus {
  readonly subject: string
  readonly certificate: string
  readonly state: 'active' | 'next' | 'retired'
  readonly not_before: number
  readonly not_after: number
  readonly key: string
  /** Epoch seconds; null unless it waits. */
  readonly active_from: number | null
}
export interface CaStatus {
  readonly tenant: string
  readonly roots: readonly RootStatus[]
  readonly issuers: readonly IssuingStatus[]
  /** A request to a CA above has had no answer yet. */
  readonly requested: boolean
  readonly passphrase: { readonly file: string; readonly beside_keys: boolean }
  readonly certificates: {
    readonly intent: number
    readonly active: number
    readonly superseded: number
    readonly revoked: number
  } | null
  /** Acts that the running node, or the next start, has yet to put in the log. */
  readonly unlogged_acts: number
  readonly warnings: readonly string[]
}

const seconds = (ms: number): number => Math.floor(ms / 1000)

function storageOf(key: KeyPlace): string {
  switch (key.kind) {
    case 'file':
      return `sealed file ${key.file}`
    case 'pkcs11':
      return `HSM, ${key.label}`
    case 'exported':
      return `exported ${new Date(key.at).toISOString()}`
    case 'foreign':
      return 'elsewhere'
  }
}

/** Everything but the counts, which the store has. */
export function describeCa(room: CaRoom, state: CaState): Omit<CaStatus, 'certificates'> {
  const certificate = (name: string) => new X509Certificate(readDer(room, name))
  return {
    tenant: state.tenant,
    roots: state.roots.map((each, at) => {
      const x509 = certificate(each.certificate)
      return {
        subject: x509.subject.replaceAll('\n', ', '),
        sha256: createHash('sha256').update(x509.raw).digest('hex'),
        not_after: seconds(x509.validToDate.getTime()),
        key: storageOf(each.key),
        current: at === 0,
      }
    }),
    issuers: state.issuers.map((each) => {
      const x509 = certificate(each.certificate)
      return {
        subject: x509.subject.replaceAll('\n', ', '),
        certificate: each.certificate,
        state: each.state,
        not_before: seconds(x509.validFromDate.getTime()),
        not_after: seconds(x509.validToDate.getTime()),
        key: storageOf(each.key),
        active_from: each.active_from === null ? null : seconds(each.active_from),
      }
    }),
    requested: state.requested !== null,
    passphrase: { file: room.passphrase.file, beside_keys: room.passphrase.beside },
    unlogged_acts: state.acts.length,
    warnings: warningsOf(room, state),
  }
}

const SOON_MS = 180 * 86_400_000

/** What should not stay as it is, a sentence each with what to do. */
export function warningsOf(room: CaRoom, state: CaState): readonly string[] {
  const said: string[] = []
  if (state.roots.some(({ key }) => key.kind === 'file'))
    said.push(
      'the root key is on this node: run sallyport ca export-root --to FILE, and keep FILE offline',
    )
  if (room.passphrase.beside)
    said.push(
      `the passphrase of the CA keys is in ${room.passphrase.file}, beside them: put it elsewhere and set ca.passphrase_file`,
    )
  for (const each of state.issuers.filter(({ state: is }) => is === 'active')) {
    const { validToDate } = new X509Certificate(readDer(room, each.certificate))
    if (validToDate.getTime() - room.now() < SOON_MS)
      said.push(`the issuing CA ends ${validToDate.toISOString()}: run sallyport ca rotate`)
  }
  return said
}

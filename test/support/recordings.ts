/** Recordings of a node without the node: a real log, a real directory, two auditors, and a clock the test turns. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatIdentity, identityOf, openLog, readLog, type AuditLog, type Identity } from '#audit'
import type { Auditor } from '../../gateway/recordings/auditors.ts'
import {
  Recordings,
  type Recorded,
  type RecordingsOptions,
} from '../../gateway/recordings/recordings.ts'

const ORIGIN = 'plant.test/audit/n1/1'

export interface Place extends AsyncDisposable {
  readonly home: string
  readonly directory: string
  readonly logDirectory: string
  /** File with the verifier keys of the log. */
  readonly keys: string
  readonly log: AuditLog
  readonly anna: Identity
  readonly bert: Identity
  /** Files with their secret keys. */
  readonly identities: { readonly anna: string; readonly bert: string }
  readonly reports: unknown[]
  now: number
  open(change?: Partial<RecordingsOptions>): Recordings
  /** Events so far: code and the facts of Sallyport's own. */
  events(): {
    readonly code: string
    readonly facts: Record<string, unknown>
    readonly text: string
  }[]
}

export async function makePlace(): Promise<Place> {
  const home = mkdtempSync(join(tmpdir(), 'sallyport-recordings-'))
  const logDirectory = join(home, 'log')
  const log = await openLog({
    directory: logDirectory,
    origin: ORIGIN,
    signers: {
      ed25519: generateKeyPairSync('ed25519').privateKey,
      mlDsa44: generateKeyPairSync('ml-dsa-44').privateKey,
    },
    clock: { now: () => Date.now() },
    random: (n) => randomBytes(n),
  })
  const [anna, bert] = [
    identityOf(new Uint8Array(32).fill(1)),
    identityOf(new Uint8Array(32).fill(2)),
  ]
  const identities = { anna: join(home, 'anna.key'), bert: join(home, 'bert.key') }
  writeFileSync(identities.anna, `${formatIdentity(anna)}\n`)
  writeFileSync(identities.bert, `${formatIdentity(bert)}\n`)
  const keys = join(home, 'log-keys')
  writeFileSync(keys, `${log.vkeys.join('\n')}\n`)
  const reports: unknown[] = []
  const place: Place = {
    home,
    directory: join(home, 'recordings'),
    logDirectory,
    keys,
    log,
    anna,
    bert,
    identities,
    reports,
    now: 1_750_000_000_000,
    open: (change = {}) =>
      new Recordings({
        directory: join(home, 'recordings'),
        auditors: {
          list: () => Promise.resolve([auditorOf('anna', anna), auditorOf('bert', bert)]),
        },
        log,
        floorBytes: 0,
        sessionBytes: 64 * 1024 * 1024,
        terminalInput: false,
        version: '0',
        now: () => place.now,
        random: (bytes) => randomBytes(bytes),
        report: (error) => reports.push(error),
        ...change,
      }),
    events: () =>
      [...readLog(logDirectory, ORIGIN)].map(({ body }) => {
        const text = Buffer.from(body).toString()
        const event = JSON.parse(text) as {
          metadata: { event_code: string }
          unmapped?: { sallyport?: Record<string, unknown> }
        }
        return { code: event.metadata.event_code, facts: event.unmapped?.sallyport ?? {}, text }
      }),
    async [Symbol.asyncDispose]() {
      await log.close()
      rmSync(home, { recursive: true, force: true })
    },
  }
  return place
}

/** The place's log, but for what becomes of an event. */
export function logWith(
  { log }: Pick<Place, 'log'>,
  append: AuditLog['append'],
): Pick<AuditLog, 'append' | 'admit' | 'directory' | 'room'> {
  return {
    append,
    admit: (bytes) => log.admit(bytes),
    directory: log.directory,
    get room() {
      return log.room
    },
  }
}

export function auditorOf(name: string, { recipient }: Identity, confirmed = true): Auditor {
  return {
    name,
    recipient: recipient.text,
    confirmed_at: confirmed ? 1 : null,
    added_at: 1,
    by: 'admin',
    secret_sha256: confirmed ? null : 'x',
  }
}

let count = 0

export function sessionOf(kind: string, change: Partial<Recorded> = {}): Recorded {
  return {
    id: `s_${String(++count).padStart(26, '0')}`,
    device: 'press-07',
    process: kind,
    grant: `g_${'0'.repeat(26)}`,
    kind,
    maxBytes: 1024 * 1024,
    ...change,
  }
}

/**
 * Who can open recordings. A key counts once its holder has shown that it opens what was sealed to it: a recording
 * that nobody can open is found out before it is made, not after.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { AuditError, parseRecipient, Sealer, type Recipient } from '#audit'
import { Refusal } from '../problem.ts'

export interface Auditor {
  readonly name: string
  /** `age1…` */
  readonly recipient: string
  /** Epoch seconds; null: it has not been shown that the key opens anything. */
  readonly confirmed_at: number | null
  readonly added_at: number
  readonly by: string
  /** SHA-256 of what the test holds; null once it was shown. */
  readonly secret_sha256: string | null
}

export interface AuditorStore {
  list(): Promise<readonly Auditor[]>
  find(name: string): Promise<Auditor | undefined>
  /** False where the name or the key is there already. */
  add(auditor: Auditor): Promise<boolean>
  confirm(name: string, at: number): Promise<void>
  remove(name: string): Promise<void>
}

/** A recording is sealed to at least so many: one lost key must not lose what was recorded. */
const MIN_AUDITORS = 2
/** And to no more. */
export const MAX_AUDITORS = 16

/** Those that recordings are sealed to now. Throws Refusal `recording.unavailable` where they are too few. */
export async function recipients(store: Pick<AuditorStore, 'list'>): Promise<readonly Recipient[]> {
  const all = (await store.list()).filter(({ confirmed_at }) => confirmed_at !== null)
  if (all.length < MIN_AUDITORS)
    throw new Refusal(
      'recording.unavailable',
      `policy asks for a recording, and ${all.length} of the ${MIN_AUDITORS} auditors are there whom it must be sealed to`,
      { nextStep: 'an administrator adds them: sallyport audit auditor add NAME --key FILE' },
    )
  return all.map(({ recipient }) => parseRecipient(recipient))
}

export interface NewAuditor {
  readonly name: string
  readonly recipient: string
  readonly by: string
  /** Epoch seconds. */
  readonly at: number
}

/** A sealed file that only the holder of the key can open; `confirmAuditor` wants what is in it. */
export async function addAuditor(
  store: AuditorStore,
  { name, recipient: text, by, at }: NewAuditor,
  random: (bytes: number) => Uint8Array,
): Promise<{ readonly auditor: Auditor; readonly test: Uint8Array }> {
  const recipient = keyOf(text)
  if ((await store.list()).length >= MAX_AUDITORS)
    throw new Refusal('auditor.exists', `there are ${MAX_AUDITORS} auditors already`, {
      nextStep: 'remove one that is not needed any more: sallyport audit auditor remove NAME',
    })
  const secret = Buffer.from(random(24)).toString('base64url')
  const sealer = new Sealer([recipient], [], random)
  const test = Buffer.concat([sealer.header, sealer.push(Buffer.from(secret)), sealer.end()])
  const auditor = {
    name,
    recipient: recipient.text,
    confirmed_at: null,
    added_at: at,
    by,
    secret_sha256: digest(secret).toString('hex'),
  }
  if (!(await store.add(auditor)))
    throw new Refusal('auditor.exists', 'an auditor of this name, or with this key, is there', {
      nextStep: 'see `sallyport audit auditor list`',
    })
  return { auditor, test }
}

function keyOf(text: string): Recipient {
  try {
    return parseRecipient(text)
  } catch (cause) {
    if (!(cause instanceof AuditError)) throw cause
    throw new Refusal('body.invalid', cause.message, {
      cause,
      nextStep: 'make a pair with `sallyport audit auditor keygen`, or with age-keygen',
    })
  }
}

/** Takes what the test held. Throws Refusal `auditor.unknown`, `auditor.test`. */
export async function confirmAuditor(
  store: AuditorStore,
  name: string,
  secret: string,
  at: number,
): Promise<Auditor> {
  const auditor = await store.find(name)
  if (auditor === undefined) throw unknown(name)
  if (auditor.secret_sha256 === null) return auditor
  if (!timingSafeEqual(digest(secret), Buffer.from(auditor.secret_sha256, 'hex')))
    throw new Refusal('auditor.test', 'this is not what the test for the key held', {
      nextStep: `open the test with the auditor’s secret key; to begin again, remove ${name} first`,
    })
  await store.confirm(name, at)
  return { ...auditor, confirmed_at: at, secret_sha256: null }
}

export function unknown(name: string): Refusal {
  return new Refusal('auditor.unknown', `no auditor is called ${name}`, {
    nextStep: 'see `sallyport audit auditor list`',
  })
}

function digest(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}

/** The answer to a question: recorded, then it counts; right or wrong, there is no second. */
import type { GrantSignature, RelyingParty } from '#approval'
import type { Accounts } from '../accounts.ts'
import { IdentityError } from '../errors.ts'
import { record, recordAct, type IdentityEvent, type IdentityLog } from '../events.ts'
import type { Account } from '../facts.ts'
import { isOutdated } from '../removal.ts'
import type { PasskeyStore } from '../store.ts'
import type { Login } from '../subject.ts'
import { lookUp, takeUp, type CeremonyKind, type CeremonyRoom, type Question } from './ceremony.ts'
import { METHOD, shown, type BrowserAnswer, type Passkey } from './credential.ts'
import { checkAnswer, namesOther, readNewPasskey } from './verify.ts'

export const MOST_PASSKEYS = 10

/** What a good answer proves. */
export interface Answered {
  readonly kind: CeremonyKind
  readonly login: Login | null
  readonly account: Account
  readonly about: string
  readonly passkey: Passkey
  /** What was signed; null for a registration. */
  readonly signed: GrantSignature | null
}

export interface AnswerRoom extends CeremonyRoom {
  readonly issuer: string
  readonly relyingParty: RelyingParty
  readonly passkeyStore: PasskeyStore
  readonly accounts: Pick<Accounts, 'find'>
  readonly log: IdentityLog
}

/** Takes the answer. Errors: as `Passkeys.answer`. */
export async function take(
  context: AnswerRoom,
  secret: string,
  kinds: readonly CeremonyKind[],
  answer: BrowserAnswer,
  source: string | null,
): Promise<Answered> {
  const shownQuestion = await lookUp(context, secret)
  if (!kinds.includes(shownQuestion.kind)) throw new IdentityError('ceremony.unknown')
  const question = await takeUp(context, secret)
  const account = await context.accounts.find(question.sub)
  if (account === undefined || account.disabled) throw new IdentityError('account.disabled')
  const asked = { question, account, source }
  return question.kind === 'register'
    ? added(context, asked, answer)
    : proven(context, asked, answer)
}

interface Asked {
  readonly question: Question
  readonly account: Account
  readonly source: string | null
}

/** A wrong answer is recorded with what is wrong with it, and refused. */
async function refuse(context: AnswerRoom, asked: Asked, fault: string): Promise<never> {
  await record(context.log, event(context, asked, fault))
  throw new IdentityError('passkey.refused', { fault })
}

function event(
  context: AnswerRoom,
  { question, account, source }: Asked,
  fault: string | null,
): IdentityEvent {
  return {
    code: 'auth.stepup',
    at: context.now(),
    source,
    outcome: fault === null ? 'success' : 'failure',
    subject: `${context.issuer}|${account.sub}`,
    email: account.email,
    party: account.party,
    client: question.login?.client ?? null,
    methods: fault === null ? [METHOD] : [],
    purpose: question.kind,
    reason: fault,
  }
}

const NOT_ADDED = {
  ended: 'ceremony.unknown',
  exists: 'passkey.exists',
  full: 'passkey.full',
  moved: 'passkey.moved',
} as const

async function added(context: AnswerRoom, asked: Asked, answer: BrowserAnswer): Promise<Answered> {
  const { question, account, source } = asked
  const { relyingParty, passkeyStore } = context
  const owned = { sub: account.sub, name: question.about, createdAt: context.now() }
  const row = await readNewPasskey(relyingParty, question.challenge, answer, owned)
  if (row === undefined) return refuse(context, asked, 'registration.invalid')
  const subject = `${context.issuer}|${account.sub}`
  const common = { at: context.now(), source, by: subject, subject }
  const event = { code: 'passkey.add', ...common, passkey: row.id, name: row.name } as const
  const { begun } = question
  const by = { login: question.login?.login ?? '', shown: begun?.shown ?? null }
  const add = async () =>
    begun !== undefined && (await isOutdated(context, account.sub, begun))
      ? 'moved'
      : await passkeyStore.addPasskey(row, MOST_PASSKEYS, by)
  const outcome = await recordAct(context.log, [event], NOT_ADDED, add)
  if (outcome === 'ended') return refuse(context, asked, 'login.ended')
  if (outcome !== 'added') throw new IdentityError(`passkey.${outcome}`)
  const { login, about } = question
  return { kind: 'register', login, account, about, passkey: shown(row), signed: null }
}

async function proven(context: AnswerRoom, asked: Asked, answer: BrowserAnswer): Promise<Answered> {
  const { question, account } = asked
  const { relyingParty, passkeyStore } = context
  const row = await passkeyStore.findPasskey(answer.id)
  if (row?.sub !== account.sub || namesOther(answer, account.sub))
    return refuse(context, asked, 'passkey.foreign')
  const verdict = await checkAnswer(relyingParty, question.challenge, row, answer)
  if (!verdict.ok) return refuse(context, asked, verdict.code)
  await record(context.log, event(context, asked, null))
  // Two answers at once: the store takes one of them.
  if (!(await passkeyStore.usePasskey(row.id, verdict.counter, context.now())))
    return refuse(context, asked, 'passkey.counter')
  const { kind, login, about } = question
  const key = { alg: row.alg, spki: row.spki }
  const signed = { assertion: verdict.assertion, key, relying_party: relyingParty }
  return { kind, login, account, about, passkey: shown(row), signed }
}

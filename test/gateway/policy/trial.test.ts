/** A candidate beside the policy in force: what it answers for, what it only counts, and when it ends by itself. */
import { expect, test } from 'vitest'
import { AuditError } from '#audit'
import { inputFor, type Decision, type Input } from '#policy'
import { Trial, type TrialOptions } from '../../../gateway/policy/trial.ts'
import { until } from '../../support/node.ts'
import { asking, decision, serving } from './serving.ts'

function trying(
  says: (input: Input) => Decision,
  options: Partial<Pick<TrialOptions, 'mode' | 'share'>> = {},
) {
  const ended: string[] = []
  const trial = new Trial({
    digest: 'd',
    revision: 'next',
    candidate: { decide: (_point, input) => says(input) },
    mode: 'canary',
    share: { percent: 100, label: null },
    since: 0,
    ended: (reason) => void ended.push(reason),
    report: () => undefined,
    ...options,
  })
  return { trial, ended }
}
const yes = decision(true, 'grant.live')
const no = decision(false, 'zone.closed')

test('a shadow answers nobody, and counts what it would have said, by kind', async () => {
  const { trial } = trying(() => no, { mode: 'shadow' })
  for (let at = 0; at < 100; at++)
    expect(trial.answer('session.open', asking('vera'), yes)).toBe(yes)
  await until('all were looked at', () => trial.status().decisions === 100)
  expect(trial.status()).toMatchObject({ state: 'running', newly_denied: 100, newly_allowed: 0 })
  expect(trial.differences()).toEqual([
    expect.objectContaining({
      change: 'newly_denied',
      person: 'vera@press.example',
      zone: 'default',
      codes: ['zone.closed'],
      count: 100,
    }),
  ])
})

test('a shadow that cannot keep up passes over what is too much, and says how much', async () => {
  const { trial } = trying(() => yes, { mode: 'shadow' })
  for (let at = 0; at < 3_000; at++) trial.answer('session.open', asking('vera'), yes)
  await until('the rest were looked at', () => {
    const { decisions, passed_over: over } = trial.status()
    return decisions + over === 3_000 && over === 1_000
  })
})

test('a canary answers for its share, and for the same people each time', () => {
  const { trial } = trying(() => decision(true, 'site.rule'), {
    share: { percent: 30, label: null },
  })
  const answered = (person: string): boolean =>
    trial.answer('session.open', asking(person), yes).arm === 'canary'
  const people = Array.from({ length: 1_000 }, (_, at) => `p${at}`)
  const first = people.filter(answered)
  expect(first.length).toBeGreaterThan(240)
  expect(first.length).toBeLessThan(360)
  expect(people.filter(answered)).toEqual(first)
})

test('by label: those devices and no other', () => {
  const share = { percent: 0, label: { name: 'ring', value: 'test' } }
  const { trial } = trying(() => decision(true, 'site.rule'), { share })
  expect(trial.answer('session.open', asking('v', { ring: 'test' }), yes).arm).toBe('canary')
  expect(trial.answer('session.open', asking('v', { ring: 'prod' }), yes)).toBe(yes)
  expect(trial.answer('session.open', asking('v'), yes)).toBe(yes)
})

test('0 % is nobody, 100 % everybody', () => {
  for (const percent of [0, 100]) {
    const { trial } = trying(() => decision(true, 'site.rule'), { share: { percent, label: null } })
    const arms = Array.from(
      { length: 200 },
      (_, at) => trial.answer('session.open', asking(`p${at}`), yes).arm,
    )
    expect(new Set(arms)).toEqual(new Set([percent === 0 ? 'active' : 'canary']))
  }
})

test('a canary that denies more than one in twenty who ask ends by itself, once, and the old policy answers again', () => {
  const { trial, ended } = trying((input) => (String(input.subject.id).startsWith('v') ? no : yes))
  for (let at = 0; at < 38; at++) trial.answer('session.open', asking(`o${at}`), yes)
  // One who tries again and again is one.
  for (let at = 0; at < 50; at++)
    expect(trial.answer('session.open', asking('vera'), yes).allow).toBe(false)
  expect(trial.status()).toMatchObject({ state: 'running', newly_denied: 50 })
  trial.answer('session.open', asking('vita'), yes)
  expect(trial.answer('session.open', asking('vala'), yes)).toBe(yes)
  expect(ended).toEqual(['at session.open, 3 of 41 who asked were newly denied'])
  expect(trial.status()).toMatchObject({ state: 'ended', reason: ended[0] })
  expect(trial.answer('session.open', asking('vera'), yes)).toBe(yes)
})

test('a point that is asked often does not drown one that is asked seldom', () => {
  const { trial, ended } = trying((input) => (input.action === 'session.open' ? no : yes))
  const request = (at: number): Input => inputFor('http.request', { subject: { id: `p${at % 9}` } })
  for (let at = 0; at < 5_000; at++) trial.answer('http.request', request(at), yes)
  for (let at = 0; at < 39; at++) trial.answer('session.open', asking(`v${at % 4}`), yes)
  expect(ended).toEqual([])
  trial.answer('session.open', asking('v1'), yes)
  expect(ended).toEqual(['at session.open, 4 of 4 who asked were newly denied'])
})

test('one failure of the candidate ends a canary, and that question gets the answer of the policy in force', () => {
  const { trial, ended } = trying(() => decision(false, 'policy.error'))
  expect(trial.answer('session.open', asking('vera'), yes)).toBe(yes)
  expect(ended).toEqual(['the candidate could not decide'])
  expect(trial.status()).toMatchObject({ state: 'ended', errors: 1, newly_denied: 0 })
})

test('what nobody is denied does not end it: newly allowed, bound otherwise', () => {
  const looser = decision(true, 'grant.live', { obligations: { ...yes.obligations, ot_level: 2 } })
  const { trial, ended } = trying(() => looser)
  for (let at = 0; at < 60; at++)
    trial.answer('session.open', asking(`p${at}`), at % 2 === 0 ? yes : no)
  expect(ended).toEqual([])
  expect(trial.status()).toMatchObject({ newly_allowed: 30, obligations: 30, state: 'running' })
})

test('what a canary let in is decided again when it ends, though its end could not be logged', async () => {
  const full = new AuditError('log.full', 'the disk is full')
  const { service, decisions, withdraw, report, trying, rolled } = await serving(({ code }) => {
    if (code === 'policy.rollback') throw full
  })
  await trying('canary')

  // It denies whoever asks, which ends it; the log takes nothing of that.
  for (let at = 0; at < 40; at++) decisions.trial?.answer('session.open', asking(`p${at}`), yes)
  expect(service.trial()?.status).toMatchObject({ state: 'ended' })
  await until('sessions are decided again', () => withdraw.mock.calls.length > 0)
  expect(withdraw.mock.calls).toMatchObject([[{ trigger: 'policy' }]])
  await until('the lost event is told', () => report.mock.calls.length > 0)
  expect(report.mock.calls).toEqual([[full, 'the end of a policy trial']])
  expect(rolled()).toEqual([])
  // The canary answers for nobody any more.
  expect(decisions.trial).toBeUndefined()
})

test('a canary that ends by itself leaves a verdict; one that people end, and a shadow, leave none', async () => {
  const { service, decisions, digest, trying, kept } = await serving()
  await trying('canary')
  await service.endTrial('ended by ada')
  await trying('shadow')
  for (let at = 0; at < 40; at++) decisions.trial?.answer('session.open', asking(`p${at}`), yes)
  await until('the shadow was asked', () => service.trial()?.status.decisions === 40)
  expect(service.verdict()).toBeNull()
  await trying('canary')
  for (let at = 0; at < 40; at++) decisions.trial?.answer('session.open', asking(`p${at}`), yes)
  const reason = expect.stringContaining('at session.open, 40 of 40') as string
  expect(service.verdict()).toMatchObject({ digest, reason })
  // A restart may come before the others have heard it.
  expect(kept().verdict).toEqual(service.verdict())
})

test('a verdict of elsewhere ends the canary of that bundle, is logged, and decides again what it let in', async () => {
  const { service, decisions, withdraw, digest, trying, rolled } = await serving()
  await trying('canary')
  await service.fall('0'.repeat(64), 'of another bundle')
  expect(service.trial()?.status.state).toBe('running')
  const fallen = service.fall(digest, 'gateway gw2: too many')
  expect(service.trial()?.status).toMatchObject({ state: 'ended', reason: 'gateway gw2: too many' })
  expect(decisions.trial).toBeUndefined()
  await fallen
  await until('sessions are decided again', () => withdraw.mock.calls.length > 0)
  expect(rolled().map(({ message }) => message)).toEqual([
    expect.stringMatching(/taken off trial: gateway gw2: too many$/),
  ])
  // It is theirs, and not said again by this one; and what has ended does not end twice.
  expect(service.verdict()).toBeNull()
  await service.fall(digest, 'again')
  expect(service.trial()?.status.reason).toBe('gateway gw2: too many')
})

test('a verdict of elsewhere leaves a shadow alone: it harms nobody', async () => {
  const { service, digest, trying, rolled } = await serving()
  await trying('shadow')
  await service.fall(digest, 'gateway gw2: too many')
  expect([service.trial()?.status.state, rolled()]).toEqual(['running', []])
})

test('a verdict of elsewhere that comes while a canary is being begun ends that one', async () => {
  let during: Promise<void> | undefined
  const { service, digest, trying, rolled } = await serving(({ message }) => {
    if (message.includes('on trial as canary'))
      during = service.fall(digest, 'gateway gw2: too many')
  })
  await trying('canary')
  await during
  expect(service.trial()?.status).toMatchObject({ state: 'ended', reason: 'gateway gw2: too many' })
  await until('it is told', () => rolled().length === 1)
})

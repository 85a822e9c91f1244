/** Consent on the device: asked once a session, waited for a moment, remembered, and no unless it is a plain yes. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { answerQuestion, standingQuestions } from '#agent'
import { Consents } from '../../agent-tunnel/agent/consent.ts'
import type { Question } from '../../agent-tunnel/agent/consent.ts'
import { parseConfig, printConfig } from '../../agent-tunnel/agent/config.ts'
import { HandClock } from '../support/clock.ts'
import { configOf, Directory, enrolled, running } from './device.ts'
import { FakeGateway, holds, openStream, proceed } from './gateway.ts'
import { startProgram } from './programs/process.ts'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
const NOW = Date.parse('2026-01-02T03:04:05.000Z')
const idOf = (number: number) => `s_${String(number).padStart(26, '0')}`
const about = (number: number): Question => ({
  session: idOf(number),
  process: 'plc',
  target: '127.0.0.1:1502',
  who: 'vera@acme.example',
})
const forever = new AbortController().signal
const HOUR_MS = 3_600_000

interface Stage extends Disposable {
  readonly path: string
  readonly logged: readonly string[]
  readonly clock: HandClock
  readonly consents: Consents
}

function stage(): Stage {
  const directory = new Directory()
  const clock = new HandClock()
  const logged: string[] = []
  const consents = new Consents({
    dataDir: directory.path,
    clock,
    now: () => NOW,
    waitMs: 60_000,
    log: (_level, event) => void logged.push(event),
  })
  return {
    logged,
    path: directory.path,
    clock,
    consents,
    [Symbol.dispose]() {
      consents[Symbol.dispose]()
      directory[Symbol.dispose]()
    },
  }
}

describe('a question', () => {
  test('is asked once a session and answered for all its connections', async () => {
    using on = stage()
    const both = [1, 2].map(() => on.consents.ask(about(1), HOUR_MS, forever))
    expect(standingQuestions(on.path)).toEqual([
      { ...about(1), asked_at: '2026-01-02T03:04:05.000Z', lapses_at: '2026-01-02T03:05:05.000Z' },
    ])
    answerQuestion(on.path, idOf(1), { answer: 'allow', by: 'shift lead' })
    on.clock.pass(200)
    const yes = { consent: { by: 'shift lead', at: NOW / 1000 } }
    expect(await Promise.all(both)).toEqual([yes, yes])
    expect(await on.consents.ask(about(1), HOUR_MS, forever)).toEqual(yes)
    expect(readdirSync(join(on.path, 'consent'))).toEqual([])
  })

  test('stands on while a connection is told to come again', async () => {
    using on = stage()
    const first = on.consents.ask(about(1), HOUR_MS, forever)
    on.clock.pass(6_000)
    expect(await first).toEqual({ code: 'owner.asked' })
    expect(standingQuestions(on.path)).toHaveLength(1)
    answerQuestion(on.path, idOf(1), { answer: 'allow', by: 'a' })
    on.clock.pass(200)
    expect(await on.consents.ask(about(1), HOUR_MS, forever)).toHaveProperty('consent')
  })

  test.for([
    ['another process', { process: 'snmp' }],
    ['another target', { target: '127.0.0.1:161' }],
    ['another person', { who: 'mallory@acme.example' }],
    ['nobody', { who: null }],
  ] as const)('is not answered for %s under the id of its session', async ([, other]) => {
    using on = stage()
    const ask = (more: Partial<Question>) =>
      on.consents.ask({ ...about(1), ...more }, HOUR_MS, forever)
    const first = ask({})
    expect(await ask(other)).toEqual({ code: 'owner.denied' })
    answerQuestion(on.path, idOf(1), { answer: 'allow', by: 'a' })
    on.clock.pass(200)
    expect(await first).toHaveProperty('consent')
    expect(await ask(other)).toEqual({ code: 'owner.denied' })
    expect(await ask({})).toHaveProperty('consent')
  })

  test('that nobody answers is a no for good', async () => {
    using on = stage()
    const first = on.consents.ask(about(1), HOUR_MS, forever)
    on.clock.pass(60_000)
    expect(await first).toEqual({ code: 'owner.silent' })
    expect(await on.consents.ask(about(1), HOUR_MS, forever)).toEqual({ code: 'owner.silent' })
    expect(standingQuestions(on.path)).toEqual([])
    expect(() => answerQuestion(on.path, idOf(1), { answer: 'allow', by: 'a' })).toThrow(
      expect.objectContaining({ code: 'consent.none' }) as Error,
    )
  })

  test('is forgotten with its session', async () => {
    using on = stage()
    const first = on.consents.ask(about(1), 5_000, forever)
    on.clock.pass(6_000)
    await first
    void on.consents.ask(about(2), HOUR_MS, forever)
    expect(standingQuestions(on.path).map(({ session }) => session)).toEqual([idOf(2)])
  })

  test('is remembered as long as the session may last, however short it was said to be at first', async () => {
    using on = stage()
    const first = on.consents.ask(about(1), 5_000, forever)
    answerQuestion(on.path, idOf(1), { answer: 'allow', by: 'a' })
    on.clock.pass(200)
    await first
    await on.consents.ask(about(1), HOUR_MS, forever)
    on.clock.pass(6_000)
    expect(await on.consents.ask(about(1), HOUR_MS, forever)).toHaveProperty('consent')
  })

  test('goes with the connection that asked, and stands for the next', async () => {
    using on = stage()
    const gone = new AbortController()
    const first = on.consents.ask(about(1), HOUR_MS, gone.signal)
    gone.abort()
    expect(await first).toEqual({ code: 'owner.asked' })
    expect(standingQuestions(on.path)).toHaveLength(1)
  })

  test('is one of at most 32', async () => {
    using on = stage()
    for (let at = 0; at < 32; at++) void on.consents.ask(about(at), HOUR_MS, forever)
    expect(await on.consents.ask(about(99), HOUR_MS, forever)).toEqual({ code: 'owner.busy' })
    expect(standingQuestions(on.path)).toHaveLength(32)
  })

  test('of an agent that has ended does not stand', () => {
    using on = stage()
    void on.consents.ask(about(1), HOUR_MS, forever)
    on.consents[Symbol.dispose]()
    expect(existsSync(join(on.path, 'consent'))).toBe(false)
  })
})

test.for([
  ['', 'owner.denied'],
  ['yes', 'owner.denied'],
  ['{"answer":true}', 'owner.denied'],
  ['{"answer":"ALLOW"}', 'owner.denied'],
  ['{"answer":"deny","by":"a"}', 'owner.denied'],
] as const)('an answer that says %j is a no', async ([text, code]) => {
  using on = stage()
  const asked = on.consents.ask(about(1), HOUR_MS, forever)
  writeFileSync(join(on.path, 'consent', `${idOf(1)}.answer`), text)
  on.clock.pass(200)
  expect(await asked).toEqual({ code })
})

test('an answer that is a directory is a no, is told, and keeps no other question from its answer', async () => {
  using on = stage()
  const asked = [1, 2].map((at) => on.consents.ask(about(at), HOUR_MS, forever))
  mkdirSync(join(on.path, 'consent', `${idOf(1)}.answer`))
  on.clock.pass(200)
  expect(await asked[0]).toEqual({ code: 'owner.denied' })
  expect(on.logged).toContain('data.unwritable')
  answerQuestion(on.path, idOf(2), { answer: 'allow', by: 'a' })
  on.clock.pass(200)
  expect(await asked[1]).toHaveProperty('consent')
})

test('a question that cannot be written down is asked of nobody, and has a code of its own', async () => {
  using on = stage()
  writeFileSync(join(on.path, 'consent'), 'no directory')
  expect(await on.consents.ask(about(1), HOUR_MS, forever)).toEqual({ code: 'owner.unasked' })
  expect(on.logged).toEqual(['data.unwritable'])
})

test('an answer that was there before the question is none', async () => {
  using on = stage()
  mkdirSync(join(on.path, 'consent'))
  writeFileSync(join(on.path, 'consent', `${idOf(1)}.answer`), '{"answer":"allow","by":"a"}')
  const asked = on.consents.ask(about(1), HOUR_MS, forever)
  on.clock.pass(6_000)
  expect(await asked).toEqual({ code: 'owner.asked' })
})

test('what somebody calls themselves cannot write into a log', async () => {
  using on = stage()
  const asked = on.consents.ask(about(1), HOUR_MS, forever)
  answerQuestion(on.path, idOf(1), { answer: 'allow', by: `a\n\u001b[2J${'b'.repeat(100)}` })
  on.clock.pass(200)
  expect(await asked).toEqual({ consent: { by: `a??[2J${'b'.repeat(58)}`, at: NOW / 1000 } })
})

test.for(['../../etc/passwd', `s_${'0'.repeat(25)}`, ''])('%j is no session to answer', (id) => {
  using on = stage()
  void on.consents.ask(about(1), HOUR_MS, forever)
  expect(() => answerQuestion(on.path, id, { answer: 'allow', by: 'a' })).toThrow(
    expect.objectContaining({ code: 'consent.none' }) as Error,
  )
})

test('agent.json: consent and its time are read, printed and checked', () => {
  const base = { v: 1, gateway: 'https://gw.example:8443', device: 'a', ca_sha256: 'a'.repeat(64) }
  const text = (target: object, more: object = {}) =>
    JSON.stringify({ ...base, targets: { plc: { tcp: '127.0.0.1:1', ...target } }, ...more })
  const config = parseConfig(text({ consent: true }, { consent_wait_s: 30 }), '/data')
  expect(config.targets.get('plc')?.consent).toBe(true)
  expect(config.consentWaitMs).toBe(30_000)
  expect(parseConfig(printConfig(config), '/data')).toEqual(config)
  expect(() => parseConfig(text({ consent: 'no' }), '/data')).toThrow(/targets\.plc\.consent/)
  expect(() => parseConfig(text({}, { consent_wait_s: 5 }), '/data')).toThrow(/consent_wait_s/)
})

test('on an agent: nothing reaches the target before the yes, and the gateway is told whose it was', async () => {
  await using gateway = await FakeGateway.start()
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const plain = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
  const [, plc] = [...plain.targets][0]!
  await using agent = running({ ...plain, targets: new Map([['plc', { ...plc, consent: true }]]) })
  const held = await gateway.nextTunnel()
  const again = () => openStream(held, 'plc', { who: 'vera@acme.example' })
  // On a slow machine it is told to come again before the answer is there.
  const opening = again().catch(() => undefined)
  const question = await holds(() => {
    const [first] = standingQuestions(directory.path)
    expect(first).toMatchObject({ process: 'plc', who: 'vera@acme.example' })
    return first!
  })
  expect(agent.logged('stream.accepted')).toEqual([])
  const words = ['--json', 'agent', 'consent', 'allow', question.session, '--data', directory.path]
  const child = spawn(process.execPath, [bin, ...words], { stdio: 'ignore' })
  expect(await once(child, 'exit')).toEqual([0, null])
  const opened = (await opening) ?? (await again())
  expect(JSON.parse(Buffer.from(opened.stream.answer).toString())).toMatchObject({
    consent: { by: expect.any(String) as string, at: expect.any(Number) as number },
  })
  proceed(opened)
  opened.stream.write(Buffer.from('through'))
  await holds(() => expect(opened.received.toString()).toBe('through'))
  expect(configOf(gateway, directory).consentWaitMs).toBe(120_000)
})

test('on an agent: a question before there is a session opens nothing, for a target whose owner wants to be asked or not', async () => {
  await using gateway = await FakeGateway.start()
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  await using agent = running(
    await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`]),
  )
  const held = await gateway.nextTunnel()
  const asking = openStream(held, 'plc', { protocol: 'consent' })
  const question = await holds(() => {
    const [first] = standingQuestions(directory.path)
    expect(first).toMatchObject({ process: 'plc' })
    return first!
  })
  answerQuestion(directory.path, question.session, { answer: 'allow', by: 'shift lead' })
  const answered = await asking
  expect(JSON.parse(Buffer.from(answered.stream.answer).toString())).toEqual({
    v: 1,
    observed: null,
    consent: { by: 'shift lead', at: expect.any(Number) as number },
  })
  // Told to proceed it carries nothing all the same.
  proceed(answered)
  answered.stream.write(Buffer.from('nowhere'))
  answered.stream.reset('session.answered')
  const opened = await openStream(held, 'plc')
  proceed(opened)
  opened.stream.write(Buffer.from('through'))
  await holds(() => expect(opened.received.toString()).toBe('through'))
  expect(agent.logged('stream.accepted')).toHaveLength(1)
  expect(answered.received).toHaveLength(0)
})

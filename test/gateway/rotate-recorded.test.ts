/** A session that is recorded while its node's log is rotated: parts hashed into both epochs, proven over both. */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { buildEvidence, identityOf, openEpoched, type EpochedLog, type EventInput } from '#audit'
import { verifyPackage } from '../../audit/evidence/verify.mjs'
import { Recordings, type Recorded } from '../../gateway/recordings/recordings.ts'
import { catalogue, foreign, hasForeign } from '../audit/evidence/fixture.ts'
import { eventually } from '../audit/fixture.ts'
import { codes, node } from '../audit/succession-fixture.ts'
import { run } from '../cli/run.ts'
import { auditorOf, sessionOf } from '../support/recordings.ts'

const vera = { uid: 'https://idp.test|vera', name: 'vera@vendor.test', party: 'vendor' } as const
const olga = { uid: 'https://idp.test|olga', name: 'olga@plant.test', party: 'staff' } as const

/** What is asked and approved before a session may begin. */
function granted({ grant, device, process }: Recorded): EventInput[] {
  const now = Math.floor(Date.now() / 1000)
  const facts = { status: 'success', device, grant } as const
  const terms = {
    devices: [device],
    processes: [process],
    not_before: now,
    not_after: now + 3_600,
    max_seconds: 3_600,
    reason_given: 'replace the valve block',
    approvals_needed: 1,
  }
  const decided = { requester: vera.uid, approvals: 1, approvals_needed: 1 }
  return [
    { ...facts, code: 'grant.request', message: 'requested', actor: vera, process, data: terms },
    {
      ...facts,
      code: 'grant.approve',
      message: 'approved',
      actor: olga,
      disposition: 'approved',
      data: decided,
    },
    { ...facts, code: 'grant.activate', message: 'it may be used', data: {} },
  ]
}

/** Begins the session; the heartbeat names it from then on. Gives what ends it. */
async function began(
  log: EpochedLog,
  { id, grant, device, process }: Recorded,
  recipients: readonly string[],
): Promise<(root: string | undefined) => Promise<unknown>> {
  const facts = { session: id, grant, device, process }
  const recording = { recording: 'asciicast', recipients: [...recipients] }
  const { idx } = await log.append({
    ...facts,
    code: 'session.start',
    message: 'opened',
    status: 'success',
    actor: { ...vera, authn: { methods: ['pwd', 'otp'], at: Math.floor(Date.now() / 1000) } },
    src: { ip: '192.0.2.7', port: 50_000 },
    disposition: 'allowed',
    data: { party: 'vendor', kind: 'ssh', ...recording },
  })
  log.setHeartbeat(() => [{ ...facts, party: 'vendor', kind: 'ssh', startIdx: idx }])
  return async (root) => {
    log.setHeartbeat(() => [])
    return await log.append({
      ...facts,
      code: 'session.end',
      message: 'ended',
      status: 'success',
      reason: 'client_done',
      actor: vera,
      data: { bytes_in: 1, bytes_out: 1, duration_ms: 1, start_idx: idx, recording_root: root },
    })
  }
}

const parts = (directory: string, epoch: number): number =>
  codes(directory, epoch).filter((code) => code === 'recording.part').length

test('a recording that is open over a rotation has parts in both epochs, and is proven over both', async () => {
  const one = node()
  const home = join(one.options.directory, '..')
  const from = Date.now()
  const log = await openEpoched(one.options)
  onTestFinished(() => log.close())
  const { vkeys } = log
  const reports: unknown[] = []
  const recordings = new Recordings({
    directory: join(home, 'recordings'),
    auditors: {
      list: () =>
        Promise.resolve(
          ['anna', 'bert'].map((name) => auditorOf(name, identityOf(randomBytes(32)))),
        ),
    },
    log,
    floorBytes: 0,
    sessionBytes: 64 * 1024 * 1024,
    terminalInput: false,
    version: '0',
    now: () => Date.now(),
    random: (n) => randomBytes(n),
    report: (error) => reports.push(error),
    limits: { partBytes: 100 },
  })
  const session = sessionOf('ssh')
  await Promise.all(granted(session).map((event) => log.append(event)))
  const recording = await recordings.admit(session, (error) => reports.push(error))
  const end = await began(log, session, recording.recipients)
  const tap = recording.tap(null)
  const say = (text: string): void => tap.data('out', new TextEncoder().encode(text.repeat(40)))
  for (const text of ['a', 'b', 'c']) say(text)
  await eventually(() => parts(one.at(1), 1) > 1)
  const rotation = log.rotate(olga)
  for (const text of ['d', 'e', 'f']) say(text)
  await rotation
  for (const text of ['g', 'h', 'i']) say(text)
  tap.end()
  await end(await recording.end('client_done'))
  const to = Date.now()
  await log.close()
  expect(reports).toEqual([])
  expect(parts(one.at(1), 1)).toBeGreaterThan(1)
  expect(parts(one.at(2), 2)).toBeGreaterThan(1)

  for (const keys of [vkeys, log.vkeys]) {
    const file = join(home, 'log-keys')
    writeFileSync(file, `${keys.join('\n')}\n`)
    const whole = ['--from', join(home, 'recordings'), '--log', one.options.directory]
    const ran = await run(home, 'recording', 'verify', ...whole, '--key', file)
    expect(ran.code, ran.out + ran.err).toBe(0)
    expect(ran.out).toContain(`proven: ${session.id}`)
    const { directory } = one.options
    const asked = { directory, vkeys: log.vkeys, from, to, catalogue }
    const { bytes } = buildEvidence(asked)
    const { exit, lines } = verifyPackage(bytes, [...keys], session.device)
    expect(lines[0], lines.join('\n')).toBe('PROVEN: complete')
    expect(exit).toBe(0)
    if (hasForeign) expect(foreign(bytes, keys)).toMatchObject({ exit: 0 })
  }
})

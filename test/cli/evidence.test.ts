import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { openLog, readLog } from '#audit'
import { readTime } from '../../cli/commands/evidence.ts'
import { verifyPackage } from '../../audit/evidence/verify.mjs'
import { keysOf } from '../audit/epoch-fixture.ts'
import { begin, Month } from '../audit/month.ts'
import { run } from './run.ts'

const home = mkdtempSync(join(tmpdir(), 'sallyport-evidence-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
const directory = join(home, 'log')

async function writeLog(): Promise<string[]> {
  const log = await openLog({
    directory,
    origin: 'plant.test/audit/n1/1',
    signers: {
      ed25519: generateKeyPairSync('ed25519').privateKey,
      mlDsa44: generateKeyPairSync('ml-dsa-44').privateKey,
    },
    clock: { now: () => Date.now() },
    random: (n) => randomBytes(n),
  })
  await log.append({
    code: 'session.deny',
    message: 'session to press-07/plc refused: grant.none',
    status: 'failure',
    actor: { uid: 'i|vera', name: 'vera@vendor.test' },
    device: 'press-07',
    data: {},
  })
  await log.close()
  return [...log.vkeys]
}

test('a package of a node’s own log is made, named, and proven by the program inside it', async () => {
  const from = new Date().toISOString()
  const vkeys = await writeLog()
  // What is asked for ends with the last event: of any later instant a log that was closed says nothing.
  const [last = 0] = [...readLog(directory, 'plant.test/audit/n1/1')]
    .map(({ body }) => (JSON.parse(Buffer.from(body).toString()) as { time: number }).time)
    .slice(-1)
  const to = new Date(last).toISOString()
  const keys = join(home, 'keys')
  writeFileSync(keys, `${vkeys.join('\n')}\n`)
  const out = join(home, 'march.zip')
  const flags = ['--log', directory, '--key', keys, '--from', from, '--to', to]
  const made = await run(home, 'audit', 'evidence', ...flags, '--device', 'press-07', '--out', out)
  expect(made).toMatchObject({ code: 0 })
  expect(made.out).toContain('complete: ')
  expect(verifyPackage(readFileSync(out), vkeys, 'press-07')).toMatchObject({ exit: 0 })
  const later = ['--log', directory, '--key', keys, '--from', from]
  const open = ['--to', new Date(last + 1_000).toISOString(), '--out', join(home, 'open.zip')]
  const told = await run(home, 'audit', 'evidence', ...later, ...open)
  expect(told).toMatchObject({ code: 2 })
  expect(told.out).toContain('of what came behind it nothing is shown')
  // A key that others may read, or that is none, signs nothing.
  const pem = join(home, 'pem')
  writeFileSync(pem, 'no key', { mode: 0o600 })
  const unsigned = await run(home, 'audit', 'evidence', ...flags, '--sign', pem, '--out', out)
  expect(unsigned).toMatchObject({ code: 2 })
  expect(unsigned.err).toContain('does not hold a private key')
  const longer: string[] = ['--log', directory, '--key', keys, '--from', '2020-01-01', '--to', to]
  expect(await run(home, 'audit', 'evidence', ...longer, '--out', out)).toMatchObject({ code: 2 })
  const none = ['--log', directory, '--key', keys, '--from', '2020-01-01', '--to', '2020-02-01']
  expect((await run(home, 'audit', 'evidence', ...none)).err).toContain('no event of that time')
})

test('an export is compared with the log, and what it lacks is named', async () => {
  const export_ = join(home, 'export')
  const bodies = [...readLog(directory, 'plant.test/audit/n1/1')].map(({ body }) =>
    Buffer.from(body).toString(),
  )
  const ask = (rows: readonly string[], ...more: string[]) => {
    writeFileSync(export_, `${rows.join('\n')}\n`)
    const flags = ['--log', directory, '--key', join(home, 'keys'), '--file', export_, ...more]
    return run(home, 'audit', 'reconcile', ...flags)
  }
  expect(await ask(bodies)).toMatchObject({ code: 0 })
  const less = await ask(bodies.toSpliced(1, 1))
  expect(less.code).toBe(1)
  expect(less.out).toContain('missing: event 1')
  expect(await ask(bodies, '--to', '99')).toMatchObject({ code: 2 })
  expect((await ask(bodies, '--sink', 'nobody')).err).toContain('no sink nobody')
})

test('a day ends with its last millisecond, and what is no time is refused', () => {
  expect(new Date(readTime('2026-03-31', 'to', true)).toISOString()).toBe(
    '2026-03-31T23:59:59.999Z',
  )
  expect(readTime('2026-03-31T10:00Z', 'to', true)).toBe(Date.parse('2026-03-31T10:00:00Z'))
  for (const text of ['March', '2026-13-01', '2026-03-01T10:00', ''])
    expect(() => readTime(text, 'from', false)).toThrow(/no time/)
})

test('nothing is pruned where there is no log, or with a key that is none or of another log', async () => {
  const flags = ['--archive', directory, '--before', '2020-01-01', '--sign', join(home, 'keys')]
  const none = await run(home, 'audit', 'prune', '--log', join(home, 'nowhere'), ...flags)
  expect(none.code).toBe(2)
  expect(none.err).toContain('there is no log in')
  const unsigned = await run(home, 'audit', 'prune', '--log', directory, ...flags)
  expect(unsigned.code).toBe(2)
  expect(unsigned.err).toMatch(/does not hold a private key|can be read by others/)
  // Keys of another log are named, and the archive is not blamed for them.
  const others = [generateKeyPairSync('ed25519'), generateKeyPairSync('ml-dsa-44')]
  const wrong = others.flatMap(({ privateKey }, at) => {
    const pem = join(home, `other-${at}.pem`)
    writeFileSync(pem, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
    return ['--sign', pem]
  })
  const asked = ['--log', directory, '--archive', directory, '--before', '2020-01-01', ...wrong]
  const strange = await run(home, 'audit', 'prune', ...asked)
  expect(strange.code).toBe(1)
  expect(strange.err).toContain('note.signature')
  expect(strange.err).toContain('these keys are not those that signed the log')
})

test('a package of a site takes a log of each gateway, and names one that is left out', async () => {
  const gateways = ['gw1', 'gw2'].map((node) => ({
    directory: join(home, node),
    keys: keysOf(1, `plant.test/audit/${node}`),
  }))
  for (const { directory: at, keys } of gateways) {
    const month = new Month(at, undefined, keys)
    month.open()
    month.pass(5)
    month.one.close()
  }
  const file = join(home, 'site-keys')
  writeFileSync(file, `${gateways.flatMap(({ keys }) => keys.vkeys).join('\n')}\n`)
  const out = join(home, 'site.zip')
  const time = ['--from', new Date(begin).toISOString(), '--to', '2026-03-10T08:04:00Z']
  const logs = gateways.flatMap(({ directory: at }) => ['--log', at])
  const flags = [...logs, '--key', file, ...time, '--out', out]
  const made = await run(home, 'audit', 'evidence', ...flags, '--node', 'gw1', '--node', 'gw2')
  expect(made).toMatchObject({ code: 0 })
  expect(made.out).toMatch(/gateways +gw1, gw2/)
  const vkeys = gateways.flatMap(({ keys }) => [...keys.vkeys])
  expect(verifyPackage(readFileSync(out), vkeys)).toMatchObject({ exit: 0 })
  const left = await run(home, 'audit', 'evidence', ...flags, '--node', 'gw3')
  expect(left).toMatchObject({ code: 2 })
  expect(left.out).toContain('the log of gw3 is not in the package')
  const alone = ['--log', gateways[0]?.directory ?? '', '--node', 'gw2', ...flags.slice(4)]
  expect((await run(home, 'audit', 'evidence', ...alone)).out).toContain('the log of gw2 is not')
  const twice = await run(home, 'audit', 'evidence', ...logs.slice(0, 2), ...flags)
  expect(twice).toMatchObject({ code: 2 })
  expect(twice.err).toContain('two of the logs are of gw1')
})

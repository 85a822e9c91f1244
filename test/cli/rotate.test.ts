/** `sallyport audit rotate` on a data directory: what it says, what it leaves, and when it does nothing. */
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readLog } from '#audit'
import { verifyPackage } from '../../audit/evidence/verify.mjs'
import { lockDirectory } from '../../gateway/store/sqlite/lock.ts'
import { run, type Ran } from './run.ts'

const home = mkdtempSync(join(tmpdir(), 'sallyport-rotate-'))
const made = join(home, 'made')
afterAll(() => rmSync(home, { recursive: true }))
beforeAll(async () => {
  expect((await run(home, 'gateway', 'init', '--data', made)).code).toBe(0)
})

/** A node's data directory, as `gateway init` leaves it. */
function data(name: string): string {
  const directory = join(home, name)
  cpSync(made, directory, { recursive: true })
  return directory
}
const rotate = (directory: string): Promise<Ran> =>
  run(home, '--json', 'audit', 'rotate', '--data', directory)
const verify = (directory: string, keys: string): Promise<Ran> =>
  run(home, 'audit', 'verify', '--log', join(directory, 'log', 'gw1'), '--key', keys)

test('the log goes on under new keys, and all of it is proven by either keys file', async () => {
  const directory = data('rotated')
  const before = readFileSync(join(directory, 'log-keys.txt'), 'utf8')
  const ran = await rotate(directory)
  expect(ran.code, ran.err).toBe(0)
  expect(JSON.parse(ran.out)).toMatchObject({
    ended: { origin: 'main.sallyport.internal/audit/gw1/1' },
    origin: 'main.sallyport.internal/audit/gw1/2',
    epoch: 2,
    resumed: false,
  })
  const { note } = (JSON.parse(ran.out) as { readonly ended: { readonly note: string } }).ended
  expect(note).toBe(readFileSync(join(directory, 'log', 'gw1', '1', 'checkpoint'), 'utf8'))
  expect(readFileSync(join(directory, 'log-keys-1.txt'), 'utf8')).toBe(before)
  expect(readFileSync(join(directory, 'log-keys.txt'), 'utf8')).not.toBe(before)
  for (const file of ['log-keys.txt', 'log-keys-1.txt']) {
    const verified = await verify(directory, join(directory, file))
    expect(verified.code, verified.out).toBe(0)
    expect(verified.out).toMatch(/^proven: every epoch .*\n\nepoch 1: proven.*epoch 2: proven/s)
    expect(verified.out).toContain('ended, goes on as  main.sallyport.internal/audit/gw1/2')
  }
  // Evidence of all of it is one package, for whoever has the keys of either.
  const times = [1, 2].flatMap((epoch) => {
    const name = `main.sallyport.internal/audit/gw1/${epoch}`
    return [...readLog(join(directory, 'log', 'gw1', `${epoch}`), name)].map(
      ({ body }) => (JSON.parse(Buffer.from(body).toString()) as { time: number }).time,
    )
  })
  const instant = (ms: number | undefined): string => new Date(ms ?? 0).toISOString()
  const out = join(home, 'rotated.zip')
  const asked = ['--from', instant(times[0]), '--to', instant(times.at(-1)), '--out', out]
  const from = ['--log', join(directory, 'log', 'gw1'), '--key', join(directory, 'log-keys.txt')]
  const package_ = await run(home, 'audit', 'evidence', ...from, ...asked)
  expect(package_.code, package_.out).toBe(0)
  expect(package_.out).toMatch(/\/gw1\/1, events 0 to \d+\n.*\/gw1\/2, events 0 to \d+\n/)
  const { exit, lines } = verifyPackage(readFileSync(out), before.trim().split('\n'))
  expect(lines.join('\n')).toContain('2 epochs, joined')
  expect(exit).toBe(0)
  // The node opens it, and what initialises a node twice changes nothing.
  expect((await run(home, 'gateway', 'init', '--data', directory)).code).toBe(0)
  expect((await verify(directory, join(directory, 'log-keys-1.txt'))).code).toBe(0)
})

test('one epoch of several is verified alone, and says what it joins', async () => {
  const directory = data('alone')
  const ran = await run(home, 'audit', 'rotate', '--data', directory)
  expect(ran.out).toMatch(/\/1 has ended with \d+ events; .*\/2 goes on from it, under new keys\n/)
  // What an owner keeps of it, as it was signed, is taken for it.
  const held = join(home, 'held')
  writeFileSync(held, ran.out.slice(ran.out.indexOf('\n\n') + 2))
  const log = ['--log', join(directory, 'log', 'gw1'), '--key', join(directory, 'log-keys.txt')]
  const kept = await run(home, 'audit', 'verify', ...log, '--held', held)
  expect(kept.code, kept.out).toBe(0)
  const one = async (epoch: string, keys: string): Promise<Ran> =>
    await run(
      home,
      'audit',
      'verify',
      '--log',
      join(directory, 'log', 'gw1', epoch),
      '--key',
      join(directory, keys),
    )
  expect((await one('2', 'log-keys.txt')).out).toMatch(/goes on from +.*\/gw1\/1\n/)
  expect((await one('1', 'log-keys-1.txt')).out).toMatch(/ended, goes on as +.*\/gw1\/2\n/)
  rmSync(join(directory, 'log', 'gw1', '2'), { recursive: true })
  const cut = await verify(directory, join(directory, 'log-keys-1.txt'))
  expect(cut).toMatchObject({ code: 2 })
  expect(cut.out).toMatch(/^not provable\nwhy +the log goes on as .*\/gw1\/2, which is not here\n/)
  const again = await rotate(directory)
  expect(again).toMatchObject({ code: 1 })
  expect(again.err).toContain('log.rollback')
})

test('beside a gateway that runs it changes nothing, and says how that one is rotated', async () => {
  const directory = data('running')
  using _held = lockDirectory(join(directory, 'lock'))
  const ran = await rotate(directory)
  expect(ran).toMatchObject({ code: 1 })
  expect(ran.err).toContain('data.in_use')
  expect(ran.err).toContain('leave --data and --config away')
  expect(existsSync(join(directory, 'keys', 'log-2-ed25519.key.pem'))).toBe(false)
})

test.for([
  {
    name: 'others may read its key',
    spoil: (directory: string) => chmodSync(join(directory, 'keys', 'log-ed25519.key.pem'), 0o644),
    code: 'key.exposed',
    next: 'make it readable by its owner alone',
  },
  {
    name: 'its key is none',
    spoil: (directory: string) => writeFileSync(join(directory, 'keys', 'log-ed25519.key.pem'), ''),
    code: 'key.unreadable',
    next: 'put the file back from the backup of keys/',
  },
  {
    name: 'its directory cannot be locked',
    spoil: (directory: string) => {
      rmSync(join(directory, 'lock'), { force: true })
      mkdirSync(join(directory, 'lock'))
    },
    code: 'data.unusable',
    next: 'see that its disk is mounted to be written',
  },
  {
    name: 'its events are gone',
    spoil: (directory: string) => {
      const seg = join(directory, 'log', 'gw1', '1', 'seg')
      for (const name of readdirSync(seg)) rmSync(join(seg, name))
    },
    code: 'log.rollback',
    next: 'find out who put it back or took it away',
  },
])('where $name, it says what to do next', async ({ name, spoil, code, next }) => {
  const directory = data(name.replaceAll(' ', '-'))
  spoil(directory)
  const ran = await run(home, 'audit', 'rotate', '--data', directory)
  expect(ran.code, ran.err).toBe(1)
  expect(ran.err).toContain(code)
  expect(ran.err).toContain(next)
})

test('where there is no log, none is made', async () => {
  const ran = await rotate(join(home, 'nothing'))
  expect(ran).toMatchObject({ code: 1 })
  expect(ran.err).toContain('log.range')
  expect(existsSync(join(home, 'nothing', 'log', 'gw1'))).toBe(false)
})

test('where the keys files cannot be written, the last head is said, and a start writes them', async () => {
  const directory = data('unwritten')
  const file = join(directory, 'log-keys-1.txt')
  mkdirSync(join(file, 'in-the-way'), { recursive: true })
  const ran = await run(home, 'audit', 'rotate', '--data', directory)
  expect(ran.code).toBe(1)
  const head = readFileSync(join(directory, 'log', 'gw1', '1', 'checkpoint'), 'utf8')
  for (const line of head.trimEnd().split('\n')) expect(ran.err).toContain(line)
  expect(ran.err).toContain('that would be a second rotation')
  rmSync(file, { recursive: true })
  expect((await run(home, 'gateway', 'init', '--data', directory)).code).toBe(0)
  for (const name of ['log-keys.txt', 'log-keys-1.txt'])
    expect((await verify(directory, join(directory, name))).code).toBe(0)
  expect(existsSync(join(directory, 'log', 'gw1', '3'))).toBe(false)
})

/** `sallyport agent update`: whose updates a device takes is said on the device, once, and taken back only there. */
import { generateKeyPairSync } from 'node:crypto'
import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { updateKeyOf } from '#update'
import { run } from '../cli/run.ts'
import { Directory } from './device.ts'

const key = () => updateKeyOf(generateKeyPairSync('ed25519').privateKey)!
const [first, second] = [key(), key()]

let directory: Directory
beforeEach(() => {
  directory = new Directory()
  const pin = 'ab'.repeat(32)
  const config = { v: 1, gateway: 'https://gw.example:8443', device: 'press-07', ca_sha256: pin }
  writeFileSync(join(directory.path, 'agent.json'), JSON.stringify({ ...config, targets: {} }))
  return () => directory[Symbol.dispose]()
})

const update = async (...words: string[]) =>
  await run(directory.path, '--json', 'agent', 'update', ...words, '--data', directory.path)
const shown = async () => JSON.parse((await update('show')).out) as Record<string, unknown>
const file = () => join(directory.path, 'update/keys')

test('none is pinned at first; what is pinned is shown, kept to its owner, and taken back', async () => {
  expect(await shown()).toMatchObject({ keys: [], current: null, trial: null, outcome: null })
  expect(existsSync(join(directory.path, 'update'))).toBe(false)
  expect(await update('pin', first.word, second.word)).toMatchObject({ code: 0, err: '' })
  expect(await shown()).toMatchObject({ keys: [first.word, second.word] })
  expect(statSync(file()).mode & 0o777).toBe(0o600)
  const people = await run(directory.path, 'agent', 'update', 'show', '--data', directory.path)
  expect(people.out).toMatch(/^keys +ed25519:/)
  expect(await update('unpin')).toMatchObject({ code: 0, err: '' })
  expect(await shown()).toMatchObject({ keys: [] })
})

test('the same keys again change nothing, and others do not replace them', async () => {
  await update('pin', first.word, second.word)
  expect(await update('pin', second.word, first.word)).toMatchObject({ code: 0 })
  const before = readFileSync(file(), 'utf8')
  const other = await update('pin', first.word)
  expect([other.code, other.err]).toEqual([2, expect.stringContaining('update.pinned') as string])
  expect(readFileSync(file(), 'utf8')).toBe(before)
})

test.for([
  ['no key', ['ed25519:short'], 'update.keys'],
  ['five keys', [0, 1, 2, 3, 4].map(() => key().word), 'update.keys'],
] as const)('%s cannot be pinned', async ([, words, code]) => {
  const ended = await update('pin', ...words)
  expect([ended.code, ended.err]).toEqual([2, expect.stringContaining(code) as string])
  expect(await shown()).toMatchObject({ keys: [] })
})

test('keys that are there and cannot be read are not taken for none', async () => {
  mkdirSync(file(), { recursive: true })
  const { code, err } = await update('show')
  expect([code, err]).toEqual([1, expect.stringContaining('data.unreadable') as string])
  const other = await update('pin', first.word)
  expect([other.code, other.err]).toEqual([1, expect.stringContaining('data.unwritable') as string])
})

describe.skipIf(process.getuid?.() !== 0)("root, for an agent's own user (needs root)", () => {
  const AGENT = 64_003
  beforeEach(() => chownSync(directory.path, AGENT, AGENT))

  test('writes what that user can read', async () => {
    expect(await update('pin', first.word)).toMatchObject({ code: 0, err: '' })
    for (const path of [file(), join(directory.path, 'update')])
      expect(statSync(path)).toMatchObject({ uid: AGENT, gid: AGENT })
  })

  test('writes nothing where that user could not', async () => {
    using elsewhere = new Directory()
    symlinkSync(elsewhere.path, join(directory.path, 'update'))
    const { code, err } = await update('pin', first.word)
    expect([code, err]).toEqual([1, expect.stringContaining('EACCES') as string])
    expect(readdirSync(elsewhere.path)).toEqual([])
  })
})

import { createHash, generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  openCheckpoint,
  parseCheckpoint,
  shortName,
  signCheckpoint,
  splitNotes,
} from '../../audit/checkpoint.ts'
import { cosignedMessage, formatVkey, isKeyName, noteSigner, parseVkey } from '../../audit/note.ts'
import { keys, origin, signers, vkeys } from './fixture.ts'

const root = createHash('sha256').update('root').digest()
const head = { origin, size: 42, root }
const signed = signCheckpoint(head, signers, 1_800_000_000_000)
const verifiers = vkeys.map(parseVkey)

function codeOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
  return 'accepted'
}

describe('a verifier key', () => {
  test('parses to itself', () => {
    for (const vkey of vkeys) expect(parseVkey(vkey).vkey).toBe(vkey)
    expect(verifiers.map((verifier) => verifier.type)).toEqual([1, 6])
  })
  test('has the id that the published example has', () => {
    // The key of the signed-note specification's Go implementation and its tests.
    const vkey = 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW'
    expect(parseVkey(vkey)).toMatchObject({ name: 'PeterNeumann', id: 'c74f20a3', type: 1 })
  })
  test.for([
    { name: 'no name', vkey: '+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW' },
    {
      name: 'another name than its id was made for',
      vkey: 'Peter+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW',
    },
    {
      name: 'an id in capitals',
      vkey: 'PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW',
    },
    { name: 'a key of another type', vkey: 'PeterNeumann+c74f20a3+AhpcAA==' },
    { name: 'a key too short', vkey: 'PeterNeumann+c74f20a3+ARpc' },
    {
      name: 'loose base64',
      vkey: 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TX',
    },
    {
      name: 'a blank in the name',
      vkey: 'Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW',
    },
    { name: 'nothing', vkey: '' },
  ])('with $name is refused', ({ vkey }) => {
    expect(codeOf(() => parseVkey(vkey))).toBe('key.invalid')
  })
  test('is not made of an RSA key', () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 1024 })
    expect(codeOf(() => formatVkey(origin, privateKey))).toBe('key.invalid')
    expect(isKeyName('a b') || isKeyName('a+b') || isKeyName('')).toBe(false)
  })
})

describe('a checkpoint', () => {
  test('is three lines, a blank line and two signatures', () => {
    const lines = signed.note.split('\n')
    expect(lines.slice(0, 4)).toEqual([origin, '42', root.toString('base64'), ''])
    expect(lines.slice(4, 6).every((line) => line.startsWith(`\u2014 ${origin} `))).toBe(true)
    expect(lines.slice(6)).toEqual([''])
    expect(shortName(signed)).toBe(`42-${root.toString('hex').slice(0, 16)}`)
  })
  test('opens with both keys, with each alone, and not with another', () => {
    expect(openCheckpoint(signed.note, verifiers)).toEqual(signed)
    for (const verifier of verifiers) expect(openCheckpoint(signed.note, [verifier]).size).toBe(42)
    const other = parseVkey(formatVkey(origin, generateKeyPairSync('ed25519').privateKey))
    expect(codeOf(() => openCheckpoint(signed.note, [other]))).toBe('note.signature')
    expect(codeOf(() => openCheckpoint(signed.note, []))).toBe('note.signature')
  })
  test('signed by one key does not satisfy a reader who trusts two', () => {
    const one = signCheckpoint(head, signers.slice(0, 1), 0)
    expect(codeOf(() => openCheckpoint(one.note, verifiers))).toBe('note.signature')
  })
  test('ignores a line of a stranger, but not a second line of a friend', () => {
    const stranger = noteSigner('elsewhere.test/witness', keys.ed25519)
    const line = signCheckpoint(head, [stranger], 0).note.split('\n')[4]
    expect(openCheckpoint(`${signed.note}${line}\n`, verifiers).size).toBe(42)
    const again = signed.note.split('\n')[4]
    expect(codeOf(() => openCheckpoint(`${signed.note}${again}\n`, verifiers))).toBe(
      'note.signature',
    )
  })
  test('with any one byte changed does not open', () => {
    const bytes = Buffer.from(signed.note)
    for (let i = 0; i < bytes.length; i += i < 300 ? 1 : 13) {
      const changed = Buffer.from(bytes)
      changed[i] = (changed[i] as number) ^ 1
      expect(['note.invalid', 'note.signature']).toContain(
        codeOf(() => openCheckpoint(changed.toString(), verifiers)),
      )
    }
  })
  test.for([
    { name: 'an extension line', note: signed.note.replace('\n\n', '\nextra\n\n') },
    { name: 'a size with a leading zero', note: signed.note.replace('\n42\n', '\n042\n') },
    { name: 'a negative size', note: signed.note.replace('\n42\n', '\n-42\n') },
    { name: 'a size past 2^53', note: signed.note.replace('\n42\n', '\n9999999999999999\n') },
    {
      name: 'a root of 31 bytes',
      note: signed.note.replace(root.toString('base64'), root.subarray(1).toString('base64')),
    },
    { name: 'no signature', note: signed.note.slice(0, signed.note.indexOf('\u2014')) },
    { name: 'a carriage return', note: signed.note.replace('\n', '\r\n') },
    { name: 'nothing', note: '' },
  ])('with $name is not a checkpoint', ({ note }) => {
    expect(codeOf(() => parseCheckpoint(note))).toBe('note.invalid')
  })
  test('signs with ML-DSA the message that tlog-cosignature defines', () => {
    const message = Buffer.from(cosignedMessage('w', 7, { origin: 'o', size: 9, root }))
    expect(message.toString('hex')).toBe(
      `${Buffer.from('subtree/v1\n\0').toString('hex')}0177${'7'.padStart(16, '0')}016f${'0'.repeat(16)}${'9'.padStart(16, '0')}${root.toString('hex')}`,
    )
  })
})

test('notes one after another are told apart, and a torn one is named', () => {
  const file = Buffer.from(`${signed.note}\n${signed.note}\n`)
  const torn = Buffer.concat([file, Buffer.from(signed.note.slice(0, 500))])
  const found = [...splitNotes(torn)]
  expect(found.map((each) => ('what' in each ? each.what : each.checkpoint.size))).toEqual([
    42,
    42,
    'cut short',
  ])
  expect(found[2]?.offset).toBe(file.length)
})

/** Manifests of updates: what is signed is what is read, and whatever is wrong with one has its code. */
import { generateKeyPairSync, sign } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  checkUpdate,
  isSigned,
  ManifestError,
  MOST_BUNDLE_BYTES,
  rankOf,
  readManifest,
  readUpdateKey,
  readVersion,
  signUpdate,
  updateKeyOf,
  type Standing,
  type Update,
} from '#update'

const { privateKey } = generateKeyPairSync('ed25519')
const other = generateKeyPairSync('ed25519').privateKey
const key = updateKeyOf(privateKey)!
const NOW = 1_800_000_000
const update: Update = {
  version: '0.2.0',
  sha256: 'ab'.repeat(32),
  size: 412_345,
  from: '0.1.0',
  node: '26.10.0',
  health: 300,
  notAfter: NOW + 3600,
}
const standing: Standing = {
  keys: [key],
  now: NOW,
  running: '0.1.0',
  floor: '0.1.0',
  node: '26.10.0',
}
const text = signUpdate(update, privateKey)

const version = fc
  .tuple(...[0, 1, 2].map(() => fc.integer({ min: 0, max: 999 })))
  .map((parts) => parts.join('.'))

describe('a manifest', () => {
  test('that is signed is taken, and reads as what was signed', () => {
    expect(checkUpdate(text, standing)).toEqual({ ok: true, update })
    expect(readManifest(text)).toEqual({ update, keyId: key.id })
  })

  test('any update reads back, and the same text is signed again', () => {
    const updates = fc.record({
      version: version.filter((one) => rankOf(one) > 0),
      sha256: fc
        .uint8Array({ minLength: 32, maxLength: 32 })
        .map((b) => Buffer.from(b).toString('hex')),
      size: fc.integer({ min: 1, max: MOST_BUNDLE_BYTES }),
      from: fc.constant('0.0.0'),
      node: version,
      health: fc.integer({ min: 1, max: 3600 }),
      notAfter: fc.integer({ min: 1, max: 253_402_300_799 }),
    })
    fc.assert(
      fc.property(updates, (one) => {
        const signed = signUpdate(one, privateKey)
        expect(readManifest(signed)?.update).toEqual(one)
        expect(signUpdate(readManifest(signed)!.update, privateKey)).toBe(signed)
      }),
    )
  })

  test('with any character changed is not taken', () => {
    for (let at = 0; at < text.length; at++) {
      const changed = `${text.slice(0, at)}${text[at] === '1' ? '2' : '1'}${text.slice(at + 1)}`
      expect(checkUpdate(changed, standing).ok, `at ${at}`).toBe(false)
    }
  })

  const forged = (body: string) =>
    `${body}signed ${key.id} ${sign(null, Buffer.from(body), privateKey).toString('base64url')}\n`
  const body = text.slice(0, text.indexOf('signed '))
  const twisted: [string, string][] = [
    ['nothing', ''],
    ['a blank at the end', `${text} `],
    ['a second signature', `${text}${text.slice(text.indexOf('signed '))}`],
    ['a line more, signed', forged(body.replace('\n\n', '\nextra 1\n\n'))],
    ['a line less, signed', forged(body.replace(/node .*\n/, ''))],
    ['lines in another order, signed', forged(body.replace(/(size .*\n)(from .*\n)/, '$2$1'))],
    [
      'a day that is none, signed',
      forged(body.replace(/not-after .*/, 'not-after 2027-02-31T00:00:00Z')),
    ],
    ['a version with something after it, signed', forged(body.replace('0.2.0', '0.2.0-rc1'))],
    ['a version that may be written otherwise, signed', forged(body.replace('0.2.0', '0.02.0'))],
    [
      'a size beyond the most, signed',
      forged(body.replace(/size .*/, `size ${MOST_BUNDLE_BYTES + 1}`)),
    ],
    ['an upper-case hash, signed', forged(body.replace('ab'.repeat(32), 'AB'.repeat(32)))],
    ['a carriage return, signed', forged(body.replaceAll('\n', '\r\n'))],
  ]
  test.for(twisted)('with %s is none', ([, given]) => {
    expect(checkUpdate(given, standing)).toMatchObject({ ok: false, code: 'update.manifest' })
  })

  test('with the signature spelt in another way is not taken', () => {
    // The last of 86 characters holds four bits that say nothing.
    const last = text.at(-2)!
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const twin = alphabet[alphabet.indexOf(last) ^ 1]!
    const spelt = `${text.slice(0, -2)}${twin}\n`
    expect(Buffer.from(twin.padStart(2, 'A'), 'base64url')).toEqual(
      Buffer.from(last.padStart(2, 'A'), 'base64url'),
    )
    expect(checkUpdate(spelt, standing)).toMatchObject({ ok: false, code: 'update.signature' })
  })

  test.for([
    ['as new as itself', { from: '0.2.0' }],
    ['of no size', { size: 0 }],
    ['that have an hour and more', { health: 3601 }],
    ['too long', { size: MOST_BUNDLE_BYTES + 1 }],
    ['that is no version', { version: '1.0' }],
    ['with a word for a hash', { sha256: 'none' }],
    ['with a line in its version', { version: '0.2.0\nsize 1' }],
  ] as const)('for agents %s is not signed', ([, change]) => {
    expect(() => signUpdate({ ...update, ...change }, privateKey)).toThrow(ManifestError)
  })

  test('is not signed by a key of another kind, or a public one', () => {
    const ec = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey
    expect(() => signUpdate(update, ec)).toThrow(ManifestError)
    expect(() => signUpdate(update, key.key)).toThrow(ManifestError)
  })
})

describe('a device takes no update', () => {
  const rows: [string, Partial<Standing>, string][] = [
    ['without a pinned key', { keys: [] }, 'update.unpinned'],
    ['of another key', { keys: [updateKeyOf(other)!] }, 'update.signature'],
    [
      'that names a pinned key and is signed by another',
      { keys: [{ ...updateKeyOf(other)!, id: key.id }] },
      'update.signature',
    ],
    ['at its end', { now: update.notAfter }, 'update.expired'],
    ['that it runs already', { running: '0.2.0' }, 'update.rollback'],
    ['older than what runs', { running: '0.10.0' }, 'update.rollback'],
    ['older than what was healthy here once', { floor: '0.2.1' }, 'update.rollback'],
    ['of which it would skip a step', { running: '0.0.9', floor: '0.0.9' }, 'update.from'],
    ['that its Node cannot run', { node: '26.9.9' }, 'update.node'],
  ]
  test.for(rows)('%s', ([, change, code]) => {
    expect(checkUpdate(text, { ...standing, ...change })).toMatchObject({ ok: false, code })
  })

  test('but the newest that was healthy here, where it does not run any more, it takes again', () => {
    expect(checkUpdate(text, { ...standing, floor: '0.2.0' }).ok).toBe(true)
  })

  test('one of several pinned keys is enough', () => {
    expect(checkUpdate(text, { ...standing, keys: [updateKeyOf(other)!, key] }).ok).toBe(true)
    expect(isSigned(text, [updateKeyOf(other)!])).toBe(false)
  })
})

test('a key has one word', () => {
  expect(readUpdateKey(key.word)?.id).toBe(key.id)
  for (const word of [
    '',
    'ed25519:',
    key.word.slice(0, -1),
    `${key.word}A`,
    key.word.toUpperCase(),
    ` ${key.word}`,
  ])
    expect(readUpdateKey(word), word).toBeUndefined()
})

test('versions are compared as numbers', () => {
  fc.assert(
    fc.property(version, version, (a, b) => {
      const [one, two] = [readVersion(a)!, readVersion(b)!]
      const at = one.findIndex((part, index) => part !== two[index])
      expect(Math.sign(rankOf(a) - rankOf(b))).toBe(at < 0 ? 0 : Math.sign(one[at]! - two[at]!))
    }),
  )
  expect(rankOf('1.0')).toBe(-1)
})

/** What loadBundle lets in: never an older one without a permit, and of an archive what one reader alone can read. */
import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { builtinDigest, loadBundle, PolicyError, type HighWater } from '#policy'
import { canonicalJson } from '../../policy/canonical.ts'
import { signPermit } from '../../policy/signature.ts'
import { readTar, writeTar } from '../../policy/tar.ts'
import { archive } from './fixture.ts'
import { text, json, ours, theirs, trust, files, signed, refusalOf, sha } from './signing.ts'

describe('going back', () => {
  const bytes = writeTar(signed({}, { seq: 7 }))
  const rows: [string, HighWater | null, string | number][] = [
    ['nothing before', null, 7],
    ['an older one before', { seq: 6, digest: 'aa' }, 7],
    ['the same one before', { seq: 7, digest: sha(bytes) }, 7],
    ['another one with this number before', { seq: 7, digest: 'aa' }, 'bundle.rollback'],
    ['a newer one before', { seq: 8, digest: 'aa' }, 'bundle.rollback'],
  ]
  test.for(rows)('%s', async ([, highWater, outcome]) => {
    if (typeof outcome === 'number')
      expect((await loadBundle(bytes, { trust, highWater })).seq).toBe(outcome)
    else expect(await refusalOf(bytes, highWater)).toBe(outcome)
  })

  test('the built-in one only while no signed one has been in force', async () => {
    const load = (highWater: HighWater | null): Promise<unknown> =>
      loadBundle(archive, { trust: 'builtin', highWater }).catch((error: PolicyError) => error.code)
    expect(await load(null)).toMatchObject({ seq: 0, keyId: null, digest: builtinDigest })
    expect(await load({ seq: 0, digest: 'aa' })).toMatchObject({ seq: 0 })
    expect(await load({ seq: 1, digest: 'aa' })).toBe('bundle.rollback')
  })

  test('the built-in trust covers one archive, to the byte', async () => {
    const other = archive.slice()
    other[other.length - 2000]! ^= 1
    const refusal = await loadBundle(other, { trust: 'builtin', highWater: null }).catch(
      (error: PolicyError) => error.code,
    )
    expect(['bundle.digest', 'bundle.tar']).toContain(refusal)
    const resigned = await loadBundle(writeTar(signed()), {
      trust: 'builtin',
      highWater: null,
    }).catch((error: PolicyError) => error.code)
    expect(resigned).toBe('bundle.digest')
  })
})

describe('the archive', () => {
  const BLOCK = 512
  /** One entry with any header fields, checksum made right. */
  function entry(name: string, type = '0', content = ''): Uint8Array {
    const one = writeTar(new Map([['x', text(content)]])).slice(
      0,
      BLOCK + Math.ceil(content.length / BLOCK) * BLOCK,
    )
    one.fill(0, 0, 100)
    one.set(text(name), 0)
    one[156] = type.charCodeAt(0)
    one.fill(0x20, 148, 156)
    const sum = one.slice(0, BLOCK).reduce((total, byte) => total + byte, 0)
    one.set(text(`${sum.toString(8).padStart(6, '0')}\0 `), 148)
    return one
  }
  const end = new Uint8Array(2 * BLOCK)
  const tar = (...entries: Uint8Array[]): Uint8Array =>
    new Uint8Array(Buffer.concat([...entries, end]))
  const rows: [string, Uint8Array, string][] = [
    ['nothing', new Uint8Array(), 'bundle.tar'],
    ['text', text('hello'), 'bundle.tar'],
    ['random bytes', new Uint8Array(4096).map((_, at) => (at * 197) % 251), 'bundle.tar'],
    ['a name with ..', tar(entry('/../policy.wasm')), 'bundle.name'],
    ['a name with .. inside', tar(entry('/a/../../b.rego')), 'bundle.name'],
    ['a name with two slashes in front', tar(entry('//etc/passwd')), 'bundle.name'],
    ['a name with a backslash', tar(entry('/a\\b.rego')), 'bundle.name'],
    ['a name with a space', tar(entry('/a b.rego')), 'bundle.name'],
    ['an empty name', tar(entry('/')), 'bundle.name'],
    ['a symbolic link', tar(entry('/policy.wasm', '2')), 'bundle.tar'],
    ['a hard link', tar(entry('/policy.wasm', '1')), 'bundle.tar'],
    ['a directory', tar(entry('/vectors/', '5')), 'bundle.tar'],
    ['an extended header', tar(entry('/pax', 'x')), 'bundle.tar'],
    ['the same name twice', tar(entry('/a.rego'), entry('/a.rego')), 'bundle.duplicate'],
    [
      'the same name with and without slash',
      tar(entry('/a.rego'), entry('a.rego')),
      'bundle.duplicate',
    ],
    ['cut short', writeTar(files).slice(0, 5000), 'bundle.tar'],
    ['without an end', writeTar(files).slice(0, -1024), 'bundle.tar'],
    ['something after the end', new Uint8Array([...writeTar(files), 1]), 'bundle.tar'],
    [
      'a wrong checksum',
      (() => {
        const bytes = writeTar(files).slice()
        bytes[0]! ^= 1
        return bytes
      })(),
      'bundle.tar',
    ],
    [
      '600 files',
      tar(...Array.from({ length: 600 }, (_, at) => entry(`/f${at}.rego`))),
      'bundle.tar',
    ],
    ['compressed badly', new Uint8Array([0x1f, 0x8b, 1, 2, 3]), 'bundle.tar'],
    ['a bomb', new Uint8Array(gzipSync(new Uint8Array(20 * 1024 * 1024))), 'bundle.size'],
    ['more than 16 MB', new Uint8Array(17 * 1024 * 1024), 'bundle.size'],
    [
      'data beyond 1 MB',
      writeTar(signed({ 'data.json': json({ site: 'x'.repeat(1_100_000) }) })),
      'bundle.size',
    ],
  ]
  test.for(rows)('%s', async ([, bytes, code]) => {
    expect(await refusalOf(bytes)).toBe(code)
  })

  test('what is written is read again, and written the same', () => {
    const name = fc.stringMatching(/^[a-z][a-z0-9_-]{0,20}(\/[a-z][a-z0-9_-]{0,20}){0,2}$/)
    fc.assert(
      fc.property(
        fc.dictionary(name, fc.uint8Array({ maxLength: 1500 }), { noNullPrototype: true }),
        (content) => {
          const all = new Map(Object.entries(content))
          const bytes = writeTar(all)
          const read = readTar(bytes)
          expect([...read.keys()].toSorted()).toEqual([...all.keys()].toSorted())
          for (const [file, value] of all)
            expect(Buffer.from(read.get(file)!).equals(value)).toBe(true)
          expect(Buffer.from(writeTar(read)).equals(bytes)).toBe(true)
        },
      ),
    )
  })

  test('one flipped bit anywhere is noticed', async () => {
    const bytes = writeTar(signed())
    for (let at = 0; at < bytes.length; at += 1009) {
      const flipped = bytes.slice()
      flipped[at]! ^= 0x10
      const outcome = await loadBundle(flipped, { trust, highWater: null }).then(
        (bundle) => bundle.digest,
        () => 'refused',
      )
      // Padding between files carries nothing; whatever loads must hold the very same files.
      if (outcome !== 'refused') {
        const same = readTar(flipped)
        for (const [name, value] of readTar(bytes))
          expect(Buffer.from(same.get(name)!).equals(value)).toBe(true)
      }
    }
  })
})

describe('canonical JSON', () => {
  test('sorts keys, keeps lists', () => {
    expect(canonicalJson({ b: [2, 1], a: { d: null, c: 'é<>&' } })).toBe(
      '{"a":{"c":"é<>&","d":null},"b":[2,1]}',
    )
  })
  const rows: [string, unknown][] = [
    ['a fraction', 1.5],
    ['an integer beyond 2^53', 2 ** 53],
    ['minus zero', -0],
    ['a key beyond ASCII', { é: 1 }],
    ['a control character', 'a\nb'],
    ['U+2028', '\u2028'],
    ['a lone surrogate', '\ud800'],
    ['undefined', { a: undefined }],
    ['a deep nest', JSON.parse('['.repeat(40) + ']'.repeat(40))],
  ]
  test.for(rows)('refuses %s', ([, value]) => {
    expect(() => canonicalJson(value)).toThrow(PolicyError)
  })
})

describe('a downgrade permit', () => {
  const bytes = writeTar(signed({}, { seq: 5 }))
  const digest = createHash('sha256').update(bytes).digest('hex')
  const highWater = { seq: 9, digest: 'aa' }
  const signer = { key: ours.key, keyId: 'plant-2026' }
  const good = { seq: 5, digest, over: 9, expiresAt: 2000 }
  const load = async (token: string, now = 1999): Promise<number | string> =>
    loadBundle(bytes, { trust, highWater, permit: { token, now } }).then(
      ({ seq }) => seq,
      (error: unknown) => (error instanceof PolicyError ? error.code : String(error)),
    )

  test('lets the one older archive in that it names', async () => {
    expect(await load(signPermit(good, signer))).toBe(5)
    expect(await refusalOf(bytes, highWater)).toBe('bundle.rollback')
  })

  const rows: [string, () => Promise<number | string>, string][] = [
    ['a second after its end', () => load(signPermit(good, signer), 2000), 'bundle.permit'],
    [
      'for another archive',
      () => load(signPermit({ ...good, digest: 'b' }, signer)),
      'bundle.permit',
    ],
    ['for another number', () => load(signPermit({ ...good, seq: 4 }, signer)), 'bundle.permit'],
    [
      'written over another mark',
      () => load(signPermit({ ...good, over: 8 }, signer)),
      'bundle.permit',
    ],
    [
      'by a stranger',
      () => load(signPermit(good, { key: theirs.key, keyId: 'plant-2026' })),
      'bundle.signature',
    ],
    [
      'by a key nobody trusts',
      () => load(signPermit(good, { key: theirs.key, keyId: 'them' })),
      'bundle.key',
    ],
    ['that is no token', () => load('permit'), 'bundle.signature'],
    [
      'that is the signature of a bundle',
      () => {
        const text = new TextDecoder().decode(signed().get('.signatures.json'))
        const { signatures } = JSON.parse(text) as { signatures: string[] }
        return load(signatures[0] ?? '')
      },
      'bundle.permit',
    ],
  ]
  test.for(rows)('%s is refused', async ([, attempt, code]) => {
    expect(await attempt()).toBe(code)
  })
})

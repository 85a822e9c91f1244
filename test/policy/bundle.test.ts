/** What loadBundle lets in: exactly what was signed, by whom we trust, and never an older one. */
import { execFile } from 'node:child_process'
import { createHash, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { builtinDigest, inputFor, loadBundle, PolicyEngine, PolicyError } from '#policy'
import type { HighWater, PublicKeys } from '#policy'
import { canonicalJson } from '../../policy/canonical.ts'
import { fileDigest, signFiles, signPermit } from '../../policy/signature.ts'
import { readTar, writeTar } from '../../policy/tar.ts'
import { archive, builtin, keyPair, opa } from './fixture.ts'

const text = (value: string): Uint8Array => new TextEncoder().encode(value)
const json = (value: unknown): Uint8Array => text(JSON.stringify(value))

const ours = keyPair('P-256')
const large = keyPair('P-384')
const theirs = keyPair('P-256')
const trust: PublicKeys = new Map([
  ['plant-2026', ours.pem],
  ['plant-384', large.pem],
])
const files = readTar(archive)

interface Signing {
  readonly key?: KeyObject
  readonly keyId?: string
  readonly seq?: number
}

function signed(
  changes: Record<string, Uint8Array> = {},
  signing: Signing = {},
): Map<string, Uint8Array> {
  const { key = ours.key, keyId = 'plant-2026', seq = 7 } = signing
  const all = new Map([...files, ...Object.entries(changes)])
  all.set('.signatures.json', signFiles(all, { key, keyId, seq, iat: 1795082400 }))
  return all
}

async function refusalOf(
  bytes: Uint8Array,
  highWater: HighWater | null = null,
  by = trust,
): Promise<string> {
  const refusal = await loadBundle(bytes, { trust: by, highWater }).catch((error: unknown) => error)
  return refusal instanceof PolicyError ? refusal.code : `no refusal: ${String(refusal)}`
}

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe('a signed bundle', () => {
  test.for([
    ['ES256', ours.key, 'plant-2026'],
    ['ES384', large.key, 'plant-384'],
  ] as const)('%s', async ([, key, keyId]) => {
    const bundle = await loadBundle(writeTar(signed({}, { key, keyId })), {
      trust,
      highWater: null,
    })
    expect(bundle).toMatchObject({
      revision: 'builtin-1',
      seq: 7,
      keyId,
      dataDigest: builtin.dataDigest,
    })
    const engine = PolicyEngine.unavailable()
    await engine.activate(bundle)
    expect(engine.status()).toMatchObject({ state: 'active', seq: 7 })
  })

  test('compressed', async () => {
    const bytes = new Uint8Array(gzipSync(writeTar(signed())))
    expect((await loadBundle(bytes, { trust, highWater: null })).seq).toBe(7)
  })

  test('data.json printed otherwise is the same data', async () => {
    const again = json(JSON.parse(new TextDecoder().decode(files.get('data.json'))))
    const bytes = writeTar(signed()).slice()
    const other = new Map(signed())
    other.set('data.json', text(`${new TextDecoder().decode(again)}\n\n`))
    expect(fileDigest('data.json', again)).toBe(fileDigest('data.json', files.get('data.json')!))
    expect((await loadBundle(writeTar(other), { trust, highWater: null })).dataDigest).toBe(
      (await loadBundle(bytes, { trust, highWater: null })).dataDigest,
    )
  })

  const withNext = (next: unknown) => {
    const manifest = JSON.parse(new TextDecoder().decode(files.get('.manifest'))) as {
      metadata: { sallyport: { next?: unknown } }
    }
    manifest.metadata.sallyport.next = next
    return writeTar(signed({ '.manifest': json(manifest) }))
  }
  test('carries what people do next about a code, and decisions say it', async () => {
    const bytes = withNext({ 'input.invalid': 'Ring <hall> 2 & wait.', __proto__x: 'No.' })
    const engine = PolicyEngine.unavailable()
    await engine.activate(await loadBundle(bytes, { trust, highWater: null }))
    const nobody = engine.decide('admin.api', inputFor('admin.api', {}), { decisionId: 'd_1' })
    expect(nobody.denials).toContainEqual(
      expect.objectContaining({ code: 'input.invalid', next: 'Ring <hall> 2 & wait.' }),
    )
    expect(engine.nextStep('toString')).toBeUndefined()
  })
  const sentences: [string, unknown][] = [
    ['a list', []],
    ['a number', { 'a.b': 1 }],
    ['an empty one', { 'a.b': ' ' }],
    ['one of two lines', { 'a.b': 'Wait.\nthen: rm' }],
    ['one that turns its direction', { 'a.b': 'Wait.\u202egnihton' }],
    ['one without end', { 'a.b': 'x'.repeat(513) }],
    ['one for a code without end', { ['x'.repeat(129)]: 'Wait.' }],
    ['too many', Object.fromEntries(Array.from({ length: 1025 }, (_, n) => [`a.${n}`, 'Wait.']))],
  ]
  test.for(sentences)('a next step that is %s is refused', async ([, next]) => {
    const refusal = await Promise.try(() => refusalOf(withNext(next))).catch(String)
    // The signer refuses what Go and Node print in two ways before anybody else could.
    expect(refusal).toMatch(/bundle\.(?:manifest|json)/)
  })

  test.skipIf(opa === undefined)(
    'is verified by stock opa, and a changed one is not',
    { timeout: 60_000 },
    async () => {
      const directory = await mkdtemp(join(tmpdir(), 'sallyport-signed-'))
      try {
        await writeFile(join(directory, 'key.pem'), ours.pem)
        const run = async (name: string, all: Map<string, Uint8Array>): Promise<string> => {
          const path = join(directory, name)
          await writeFile(path, gzipSync(writeTar(all)))
          const key = [
            '--verification-key',
            join(directory, 'key.pem'),
            '--verification-key-id',
            'plant-2026',
          ]
          const args = [
            'build',
            '--bundle',
            path,
            ...key,
            '--signing-alg',
            'ES256',
            '--scope',
            'sallyport',
          ]
          const out = ['--output', join(directory, 'out.tar.gz')]
          return promisify(execFile)(opa?.path ?? '', [...args, ...out]).then(
            () => 'verified',
            (error: { stderr?: string; stdout?: string }) => `${error.stdout}${error.stderr}`,
          )
        }
        expect(await run('good.tar.gz', signed())).toBe('verified')
        const changed = signed()
        changed.set('policy/default/mask.rego', text('package system.log\n'))
        expect(await run('changed.tar.gz', changed)).toMatch(/mask\.rego/)
      } finally {
        await rm(directory, { recursive: true, force: true })
      }
    },
  )
})

describe('refused', () => {
  const without = (name: string): Map<string, Uint8Array> => {
    const all = new Map(files)
    all.delete(name)
    return signedFrom(all)
  }
  const signedFrom = (all: Map<string, Uint8Array>): Map<string, Uint8Array> => {
    all.set(
      '.signatures.json',
      signFiles(all, { key: ours.key, keyId: 'plant-2026', seq: 7, iat: 1 }),
    )
    return all
  }
  const manifest = (change: (value: Record<string, unknown>) => void): Uint8Array => {
    const value = JSON.parse(new TextDecoder().decode(files.get('.manifest'))) as Record<
      string,
      unknown
    >
    change(value)
    return json(value)
  }
  const tampered = (name: string, bytes: Uint8Array): Map<string, Uint8Array> =>
    signed().set(name, bytes)
  const wasm = files.get('policy.wasm')!.slice()
  wasm[wasm.length - 9]! ^= 1

  const rows: [string, () => Map<string, Uint8Array>, string][] = [
    ['not signed', () => new Map(files), 'bundle.unsigned'],
    [
      'signed by somebody else under our name',
      () => signed({}, { key: theirs.key }),
      'bundle.signature',
    ],
    [
      'signed by a key we do not know',
      () => signed({}, { key: theirs.key, keyId: 'other' }),
      'bundle.key',
    ],
    ['signed by a key of another curve', () => signed({}, { key: large.key }), 'bundle.key'],
    ['one bit of the module changed', () => tampered('policy.wasm', wasm), 'bundle.files'],
    ['the data changed', () => tampered('data.json', json({ site: {} })), 'bundle.files'],
    [
      'the manifest changed',
      () =>
        tampered(
          '.manifest',
          manifest((m) => (m['revision'] = 'x')),
        ),
      'bundle.files',
    ],
    [
      'a rule changed',
      () => tampered('policy/default/facts.rego', text('package policy.facts\n')),
      'bundle.files',
    ],
    [
      'an extra file',
      () => tampered('policy/extra.rego', text('package policy.extra\n')),
      'bundle.files',
    ],
    [
      'a file taken away',
      () => {
        const all = signed()
        all.delete('policy/default/facts.rego')
        return all
      },
      'bundle.files',
    ],
    ['a file of no known kind', () => signed({ 'run.sh': text('echo') }), 'bundle.unexpected'],
    [
      'a patch (deltas are not signed)',
      () => signed({ 'patch.json': text('{}') }),
      'bundle.unexpected',
    ],
    ['no module', () => without('policy.wasm'), 'bundle.missing'],
    ['no manifest', () => without('.manifest'), 'bundle.missing'],
    ['no data', () => without('data.json'), 'bundle.missing'],
    [
      'other roots',
      () => signed({ '.manifest': manifest((m) => (m['roots'] = [''])) }),
      'bundle.manifest',
    ],
    [
      'no revision',
      () => signed({ '.manifest': manifest((m) => (m['revision'] = '')) }),
      'bundle.manifest',
    ],
    [
      'another input version',
      () =>
        signed({ '.manifest': manifest((m) => (m['metadata'] = { sallyport: { input_v: 2 } })) }),
      'bundle.manifest',
    ],
    ['signatures that are not JSON', () => tampered('.signatures.json', text('{')), 'bundle.json'],
    [
      'two signatures',
      () => tampered('.signatures.json', json({ signatures: ['a.b.c', 'a.b.c'] })),
      'bundle.signature',
    ],
    [
      'no signature in the list',
      () => tampered('.signatures.json', json({ signatures: [] })),
      'bundle.signature',
    ],
    [
      'a vector that is none',
      () => signed({ 'vectors/x.json': text('{"point":"x"}') }),
      'bundle.manifest',
    ],
  ]
  test.for(rows)('%s', async ([, make, code]) => {
    expect(await refusalOf(writeTar(make()))).toBe(code)
  })

  test.for(['none', 'HS256', 'RS256', 'ES512'])('algorithm %s', async (alg) => {
    const encode = (value: unknown): string =>
      Buffer.from(JSON.stringify(value)).toString('base64url')
    const [, body, tail] = JSON.parse(
      new TextDecoder().decode(signed().get('.signatures.json')),
    ).signatures[0].split('.')
    const token = `${encode({ alg, kid: 'plant-2026' })}.${body}.${tail}`
    expect(
      await refusalOf(writeTar(tampered('.signatures.json', json({ signatures: [token] })))),
    ).toBe('bundle.signature')
  })

  const forged: [string, Record<string, unknown>, string][] = [
    ['another scope', { scope: 'read' }, 'bundle.signature'],
    ['no scope', { scope: undefined }, 'bundle.signature'],
    ['no seq', { seq: undefined }, 'bundle.signature'],
    ['seq 0', { seq: 0 }, 'bundle.signature'],
    ['no files', { files: undefined }, 'bundle.signature'],
    ['a file signed twice', { twice: true }, 'bundle.files'],
    ['another hash', { weak: true }, 'bundle.signature'],
  ]
  test.for(forged)('well signed, but %s', async ([, change, code]) => {
    const encode = (value: unknown): string =>
      Buffer.from(JSON.stringify(value)).toString('base64url')
    const [, body] = JSON.parse(
      new TextDecoder().decode(signed().get('.signatures.json')),
    ).signatures[0].split('.')
    const { twice, weak, ...rest } = change
    const payload = { ...JSON.parse(Buffer.from(body, 'base64url').toString()), ...rest }
    if (twice === true) payload.files.push(payload.files[0])
    if (weak === true) payload.files[0].algorithm = 'MD5'
    const head = `${encode({ alg: 'ES256' })}.${encode(payload)}`
    const value = sign('sha256', Buffer.from(head), { key: ours.key, dsaEncoding: 'ieee-p1363' })
    const token = `${head}.${value.toString('base64url')}`
    expect(
      await refusalOf(writeTar(tampered('.signatures.json', json({ signatures: [token] })))),
    ).toBe(code)
  })
})

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

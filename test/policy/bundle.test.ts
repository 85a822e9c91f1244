/** What loadBundle lets in: exactly what was signed, by whom we trust. */
import { execFile } from 'node:child_process'
import { sign } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { inputFor, loadBundle, PolicyEngine } from '#policy'
import { fileDigest, signFiles } from '../../policy/signature.ts'
import { writeTar } from '../../policy/tar.ts'
import { builtin, opa } from './fixture.ts'
import { text, json, ours, large, theirs, trust, files, signed, refusalOf } from './signing.ts'

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

/** The committed bundle is made of the committed sources; the gates see what they are there for. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { builtinDigest } from '#policy'
import { readTar } from '../../policy/tar.ts'
import { buildBundle } from '../../policy/toolchain/build.ts'
import {
  checkFormat,
  checkTypes,
  lintCatalogue,
  lintPolicy,
  runRegoTests,
  unusedCodes,
} from '../../policy/toolchain/check.ts'
import { apart } from '../../policy/toolchain/gates.ts'
import { codesIn, lintTree } from '../../policy/toolchain/lint.ts'
import type { Tree } from '../../policy/toolchain/lint.ts'
import { findOpa, OPA_VERSION } from '../../policy/toolchain/opa.ts'
import {
  digestOf,
  publishedSchemas,
  readLock,
  sourceDigests,
} from '../../policy/toolchain/sources.ts'
import { vectorData } from '../../policy/toolchain/vectors.ts'
import { archive, opa } from './fixture.ts'

describe('without a compiler', () => {
  test('of long lists of codes what is not the same is said', () => {
    const many = ['a', 'b', 'c', 'd', 'e']
    expect(apart(many, ['a', 'c', 'd', 'e', 'f'])).toBe('; f came too; b did not come')
    expect(apart(many, [...many, 'f'])).toBe('; f came too')
    expect([apart(['a'], ['b']), apart(many, many)]).toEqual(['', ''])
  })

  test('the lock matches the sources', async () => {
    const { sources } = await readLock()
    expect(sources).toEqual(await sourceDigests())
  })

  test('the lock matches the bundle', async () => {
    expect(digestOf(archive)).toBe((await readLock()).bundle_sha256)
    expect(digestOf(archive)).toBe(builtinDigest)
  })

  test('the bundle carries the very sources, and no test', async () => {
    const { sources } = await readLock()
    const files = readTar(archive)
    for (const [path, digest] of Object.entries(sources)) {
      if (!path.endsWith('.rego')) continue
      expect(digestOf(files.get(`policy/${path}`) ?? new Uint8Array()), path).toBe(digest)
    }
    expect([...files.keys()].filter((name) => name.includes('_test'))).toEqual([])
  })

  test('every code in Rego is in the catalogue, in the same words', async () => {
    expect(await lintCatalogue()).toEqual([])
  })

  test('every code of the catalogue is given by somebody', async () => {
    expect(await unusedCodes()).toEqual([])
  })

  test('codes are found over several lines, with their words', () => {
    const source =
      'deny contains {\n\t"code": "a.b",\n\t"msg": "m",\n\t"remedy": "approve",\n} if not x\nallow contains {"code": "c"}'
    expect(codesIn(source)).toEqual([
      { code: 'a.b', msg: 'm', remedy: 'approve' },
      { code: 'c', msg: undefined, remedy: undefined },
    ])
  })

  test('the published schema of every point is the one the host checks with', async () => {
    const files = [...publishedSchemas()]
    expect(files.length).toBe(10)
    for (const [path, schema] of files)
      expect(JSON.parse(await readFile(path, 'utf8')), path).toEqual(schema)
  })

  test('an opa of another version is not taken', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'sallyport-opa-'))
    try {
      const path = join(directory, 'opa')
      await writeFile(path, '#!/bin/sh\necho "Version: 0.1.0"\n', { mode: 0o755 })
      expect(await findOpa({ path: directory, cache: directory })).toBeUndefined()
      await writeFile(path, `#!/bin/sh\necho "Version: ${OPA_VERSION}"\n`, { mode: 0o755 })
      expect(await findOpa({ path: directory, cache: '' })).toEqual({ path, source: 'path' })
      expect(await findOpa({ path: '', cache: directory })).toEqual({ path, source: 'cache' })
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })
})

describe.skipIf(opa === undefined)(`with opa ${OPA_VERSION}`, () => {
  const compiler = opa ?? { path: '', source: 'path' as const }

  test('a rebuild gives the same bytes', { timeout: 120_000 }, async () => {
    const { archive: rebuilt } = await buildBundle(compiler)
    expect(digestOf(rebuilt)).toBe(builtinDigest)
  })

  test(
    'the sources are formatted, typed by the schemas, and follow the writing rules',
    { timeout: 120_000 },
    async () => {
      expect(await checkFormat(compiler)).toMatchObject({ ok: true })
      expect(await checkTypes(compiler)).toMatchObject({ ok: true })
      expect(await lintPolicy(compiler)).toEqual([])
    },
  )

  test('the Rego tests pass', { timeout: 120_000 }, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'sallyport-vectors-'))
    try {
      const file = join(directory, 'vectors.json')
      await writeFile(file, JSON.stringify(await vectorData()))
      const gate = await runRegoTests(compiler, [file])
      expect(gate.ok, gate.detail).toBe(true)
      expect(gate.detail).toMatch(/^PASS: \d+\/\d+$/m)
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })

  const rows: [string, string, string[]][] = [
    ['a helper, negated', 'deny contains {"code": "x", "msg": "m"} if not _ok', []],
    ['a path, negated', 'deny contains {"code": "x", "msg": "m"} if not facts.ok', []],
    [
      'an equality with a literal, negated',
      'deny contains {"code": "x", "msg": "m"} if not input.a.b == "c"',
      [],
    ],
    [
      'an inequality',
      'deny contains {"code": "x", "msg": "m"} if input.a.b != "c"',
      ['deny-closes'],
    ],
    [
      'a comparison, negated',
      'deny contains {"code": "x", "msg": "m"} if not input.a < 3',
      ['deny-closes'],
    ],
    [
      'a membership, negated',
      'deny contains {"code": "x", "msg": "m"} if not input.a in {"b"}',
      ['deny-closes'],
    ],
    [
      'a call, negated',
      'deny contains {"code": "x", "msg": "m"} if not _f(input.a)',
      ['deny-closes'],
    ],
    [
      'a field against a field',
      'deny contains {"code": "x", "msg": "m"} if not input.a == input.b',
      ['deny-closes'],
    ],
    [
      'two conditions',
      'deny contains {"code": "x", "msg": "m"} if {\n\tinput.a\n\tnot _ok\n}',
      ['deny-closes'],
    ],
    ['an allow without code', 'allow contains {"ref": "x"} if _ok', ['allow-has-code']],
    [
      'a walk',
      'allow contains {"code": "x"} if {\n\twalk(input, [_, v])\n\tv == 1\n}',
      ['no-walk'],
    ],
  ]
  test.for(rows)('the lint on %s', { timeout: 60_000 }, async ([, rule, found]) => {
    const directory = await mkdtemp(join(tmpdir(), 'sallyport-lint-'))
    try {
      const file = join(directory, 'a.rego')
      const helpers = '\n\n_ok if input.ok == true\n\n_f(x) if x == 1\n'
      await writeFile(file, `package policy.x\n\nimport data.policy.facts\n\n${rule}${helpers}`)
      const args = ['parse', '--format', 'json', '--json-include', 'locations', file]
      const { stdout } = await promisify(execFile)(compiler.path, args)
      expect(lintTree(JSON.parse(stdout) as Tree, 'a.rego').map((finding) => finding.rule)).toEqual(
        found,
      )
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })
})

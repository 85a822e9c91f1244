/** `sallyport policy` on a security team's own machine: a folder, its gates, a signed bundle, one decision. */
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadBundle, PolicyEngine } from '#policy'
import { type Gate, makeBundle, stageTree } from '#policy-toolchain'
import { findOpa, processEnvironment, resolveOpa } from '../../policy/toolchain/opa.ts'
import { baseInputs, readVectors } from '../../policy/toolchain/vectors.ts'
import { run } from './run.ts'

const opa = await findOpa(processEnvironment())
const folder = mkdtempSync(join(tmpdir(), 'sallyport-policy-cli-'))
const at = (...names: string[]) => join(folder, ...names)
const policy = async (...args: string[]) => run(folder, 'policy', ...args)
beforeAll(async () => {
  const made = await policy('new', at('site'))
  expect([made.code, made.err]).toEqual([0, ''])
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Runs `work` with one file of the folder changed. */
async function changed(
  name: string,
  change: (text: string) => string,
  work: () => Promise<void>,
): Promise<void> {
  const file = at('site', name)
  const before = readFileSync(file, 'utf8')
  const after = change(before)
  expect(after, 'the planted fault is in the file').not.toBe(before)
  writeFileSync(file, after)
  try {
    await work()
  } finally {
    writeFileSync(file, before)
  }
}

test('a folder that holds something is not made over', async () => {
  const again = await policy('new', at('site'))
  expect(again.code).toBe(2)
  expect(again.err).toContain('is not empty')
  expect(again.err).toContain('next  name a new directory')
})

test.for([
  ['the gates pass', 0, ['check .', 'test .']],
  ['the first one fails', 1, ['check .']],
] as const)('its CI runs from anywhere and ends as the gates do: %s', ([, code, ran]) => {
  const bin = mkdtempSync(join(folder, 'bin-'))
  const script = `#!/bin/sh\nshift\necho "$@ $PWD" >> ${bin}/ran\nexit ${code}\n`
  writeFileSync(join(bin, 'sallyport'), script, { mode: 0o755 })
  const env = { ...process.env, PATH: `${bin}:${process.env['PATH']}` }
  const ci = spawnSync(at('site', 'ci.sh'), [], { cwd: '/', env, encoding: 'utf8' })
  expect([ci.error, ci.status, ci.stderr]).toEqual([undefined, code, ''])
  const site = realpathSync(at('site'))
  expect(readFileSync(join(bin, 'ran'), 'utf8').trim().split('\n')).toEqual(
    ran.map((one) => `${one} ${site}`),
  )
})

test('a key is 0600, sealed where it is asked for, and never replaced', async () => {
  writeFileSync(at('words'), 'correct horse battery staple\n', { mode: 0o600 })
  const made = await policy('keygen', '--out', at('key.pem'), '--passphrase-file', at('words'))
  expect(made.code).toBe(0)
  expect(statSync(at('key.pem')).mode & 0o777).toBe(0o600)
  expect(readFileSync(at('key.pem'), 'utf8')).toContain('BEGIN ENCRYPTED PRIVATE KEY')
  expect(readFileSync(at('key.pem.pub'), 'utf8')).toContain('BEGIN PUBLIC KEY')
  const again = await policy('keygen', '--out', at('key.pem'), '--unsealed')
  expect([again.code, again.err.includes('exists')]).toEqual([2, true])
})

test('without a compiler: what is missing, how to get it, and an exit code of its own', async () => {
  const path = process.env['PATH']
  const home = process.env['XDG_CACHE_HOME']
  try {
    process.env['PATH'] = at('nothing')
    process.env['XDG_CACHE_HOME'] = at('empty')
    const ran = await policy('check', at('site'))
    expect(ran.code).toBe(7)
    expect(ran.err).toMatch(/code {2}policy\.compiler\n.*was not found[^]*next {2}install Go/)
  } finally {
    process.env['PATH'] = path
    if (home === undefined) delete process.env['XDG_CACHE_HOME']
    else process.env['XDG_CACHE_HOME'] = home
  }
})

test('a label that is none is said before anybody is asked', async () => {
  const ran = await policy('try', '0'.repeat(64), '--label', 'ring')
  expect([ran.code, ran.err.includes('write it as NAME=VALUE, as in ring=test')]).toEqual([2, true])
})

describe.skipIf(opa === undefined)('with opa', () => {
  test('a new folder passes the gates that need no tests', { timeout: 120_000 }, async () => {
    const ran = await policy('check', at('site'))
    expect(ran.out.trim().split(/\s*\n/)).toEqual(
      ['fmt', 'types', 'lint', 'catalogue'].map((gate) => `ok    ${gate}`),
    )
    expect(ran.code).toBe(0)
  })

  const faults: [string, string, (text: string) => string, RegExp][] = [
    [
      'a denial that a missing field would switch off',
      'rules/session_open.rego',
      (text) =>
        `${text}\ndeny contains {"code": "mfa.stale", "msg": "x"} if input.device.id != "a"\n`,
      /FAIL {2}lint\n\s+rules\/session_open\.rego:\d+ deny-closes: /,
    ],
    [
      'a field that no input has',
      'rules/facts.rego',
      (text) => text.replace('input.time.epoch_s', 'input.time.epoch'),
      /FAIL {2}types\n[^]*rules\/facts\.rego:\d+/,
    ],
    [
      'a code nobody gave a sentence',
      'rules/access.rego',
      (text) => text.replace('"lock.active"', '"site.locked"'),
      /FAIL {2}catalogue\n\s+rules\/access\.rego:\d+ catalogue site\.locked: add it to codes\.json/,
    ],
    [
      'spaces of one’s own',
      'rules/facts.rego',
      (text) => text.replace('\nzone :=', '\nzone    :='),
      /FAIL {2}fmt\n\s+rules\/facts\.rego\n\s+the compiler lays these out otherwise: sallyport policy fmt DIR/,
    ],
    [
      'a remedy that the catalogue does not know of',
      'rules/access.rego',
      (text) => text.replace('"access is locked"}', '"access is locked", "remedy": "approve"}'),
      /catalogue lock\.active: word it as codes\.json does: remedy is none there and "approve" here/,
    ],
  ]
  test.for(faults)('%s is found, with its place', { timeout: 120_000 }, async (row) => {
    const [, file, change, finds] = row
    await changed(file, change, async () => {
      const ran = await policy('check', at('site'))
      expect(ran.code).toBe(1)
      expect(ran.out).toMatch(finds)
    })
  })

  test('a code of one’s own, once it has its sentence', { timeout: 120_000 }, async () => {
    const denial = '{"code": "site.closed", "msg": "the hall is closed"}'
    const codes = { denials: { 'site.closed': { msg: 'the hall is closed', next: 'Wait.' } } }
    await changed(
      'rules/session_open.rego',
      (text) => `${text}\ndeny contains ${denial} if not facts.unlocked\n`,
      async () =>
        changed(
          'codes.json',
          () => JSON.stringify({ ...codes, reasons: {} }),
          async () => {
            expect((await policy('check', at('site'))).out).not.toContain('FAIL')
            await using tree = await stageTree(at('site'))
            const { files } = await makeBundle(await resolveOpa(processEnvironment()), tree)
            const manifest = new TextDecoder().decode(files.get('.manifest'))
            expect(JSON.parse(manifest)).toHaveProperty('metadata.sallyport.next', {
              'site.closed': 'Wait.',
            })
          },
        ),
    )
  })

  const signTo = async (out: string, ...flags: string[]) => {
    const key = ['--key', at('key.pem'), '--passphrase-file', at('words')]
    return run(
      folder,
      ...flags,
      'policy',
      'sign',
      at('site'),
      ...key,
      '--seq',
      '1',
      '--out',
      at(out),
    )
  }

  /** Runs `work` with only these rows in the folder's tests. */
  const withRows = async (kept: readonly string[], work: () => Promise<void>) => {
    const names = readdirSync(at('site', 'tests')).filter(
      (name) => !['base.json', 'site.json', ...kept].includes(name),
    )
    await names.reduce<() => Promise<void>>(
      (inner, name) => async () => changed(`tests/${name}`, () => '[]', inner),
      work,
    )()
  }

  test('a key that does not open is told before any gate is asked', async () => {
    const signing = (key: string, words: string) => {
      const flags = ['--key', at(key), '--passphrase-file', at(words), '--seq', '1']
      return policy('sign', at('site'), ...flags, '--out', at('no.tar'))
    }
    writeFileSync(at('other-words'), 'wrong horse battery staple\n', { mode: 0o600 })
    for (const [ran, why] of [
      [await signing('key.pem', 'other-words'), 'the passphrase does not open the signing key'],
      [await signing('key.pem.pub', 'words'), 'the signing key is the public half'],
      [await signing('words', 'words'), 'the signing key cannot be read'],
    ] as const) {
      expect([ran.code, ran.out]).toEqual([2, ''])
      expect(ran.err).toContain(why)
    }
  })

  test('what is not proven is not signed: rules without a row', { timeout: 900_000 }, async () => {
    await withRows(['verbs.json'], async () => {
      const ran = await signTo('no.tar')
      expect(ran.code).toBe(1)
      expect(ran.out.split('\n').filter((line) => line.startsWith('FAIL'))).toEqual([
        'FAIL  coverage',
      ])
      expect(ran.out).toMatch(/FAIL {2}coverage\n\s+[\d.]+ % of the lines, at least 95/)
      expect(ran.err).toContain('nothing was signed')
      expect(existsSync(at('no.tar'))).toBe(false)
    })
  })

  test(
    'a rule that an unknown fact opens: the field and the vector named, nothing signed',
    { timeout: 900_000 },
    async () => {
      const opened = (text: string) =>
        text.replace('input.client.managed == true', 'input.client.managed != false')
      const one = only('managed clients only')
      await withRows(['circumstances.json'], async () =>
        changed('tests/circumstances.json', one, async () =>
          changed('rules/access.rego', opened, async () => {
            const said = /circumstances: managed clients only: client\.managed nulled allows/
            const tested = await run(folder, '--json', 'policy', 'test', at('site'))
            expect(JSON.parse(tested.out)).toMatchObject({
              ok: false,
              gates: [
                { gate: 'carried', ok: true },
                { gate: 'tests', ok: true },
                { gate: 'coverage', ok: false },
                { gate: 'engines', ok: true, detail: '1 vectors alike' },
                { gate: 'fail-open', ok: false, detail: expect.stringMatching(said) as unknown },
                { gate: 'speed', ok: true },
              ],
            })
            const signed = await signTo('open.tar')
            expect(signed.code).toBe(1)
            expect(signed.out).toMatch(said)
            expect(existsSync(at('open.tar'))).toBe(false)
          }),
        ),
      )
    },
  )

  const only = (name: string) => (text: string) =>
    JSON.stringify((JSON.parse(text) as { name: string }[]).filter((row) => row.name === name))
  const closed = (text: string) =>
    text.replace('"windows_required": false', '"windows_required": true')

  test(
    'a site’s own data: rows stand on theirs, what travels is decided on it',
    { timeout: 900_000 },
    async () => {
      await withRows(['circumstances.json'], async () =>
        changed('tests/circumstances.json', only('island'), async () =>
          changed('site.json', closed, async () => {
            const { out } = await policy('test', at('site'))
            expect(out).toMatch(/ok {4}tests/)
            expect(out).toMatch(
              /FAIL {2}carried\n\s+vectors\/ \(smoke\.failed\):\n[^]*a vendor with a live grant: allow \(grant\.live\) was to come out, and challenge \(window\.closed\) did/,
            )
          }),
        ),
      )
    },
  )

  test('a row that comes out otherwise says how', { timeout: 900_000 }, async () => {
    await withRows(['circumstances.json'], async () =>
      changed(
        'tests/circumstances.json',
        (text) => only('island')(text).replace('device.island"]', 'x"],"obligations":{"record":1}'),
        async () => {
          const { out, code } = await policy('test', at('site'))
          expect(code).toBe(1)
          expect(out).toContain(
            'circumstances: island: deny (x) was to come out, and deny (device.island) did',
          )
        },
      ),
    )
  })

  test('a new folder, signed, loaded and in force', { timeout: 900_000 }, async () => {
    const ran = await signTo('bundle.tar', '--json')
    expect([ran.code, ran.err]).toEqual([0, ''])
    const { gates, key_id: keyId } = JSON.parse(ran.out) as { gates: Gate[]; key_id: string }
    expect(gates.filter(({ ok }) => ok).map(({ gate }) => gate)).toEqual(
      'fmt types lint catalogue carried tests coverage engines fail-open speed'.split(' '),
    )
    expect(gates.find(({ gate }) => gate === 'fail-open')?.detail).toMatch(
      /^\d{5} inputs and \d{5} decisions under other data, none opens$/,
    )
    const trust = new Map([[keyId, readFileSync(at('key.pem.pub'), 'utf8')]])
    const bundle = await loadBundle(readFileSync(at('bundle.tar')), { trust, highWater: null })
    const engine = PolicyEngine.unavailable()
    await engine.activate(bundle)
    expect(engine.status()).toMatchObject({ revision: 'site-1', seq: 1 })
    for (const [point, input] of Object.entries(await baseInputs())) {
      const decision = engine.decide(point as keyof Awaited<ReturnType<typeof baseInputs>>, input, {
        decisionId: 'd_1',
      })
      expect([point, decision.effect]).toEqual([point, 'allow'])
    }
  })

  test('one input, decided and explained at the line', { timeout: 120_000 }, async () => {
    const vector = (await readVectors()).find(
      ({ name }) => name === 'the right executable, another user',
    )
    writeFileSync(at('input.json'), JSON.stringify(vector?.input))
    const built = await policy('build', at('site'), '--out', at('b.tar'))
    expect(built.out).toContain('unsigned: a gateway takes none of these')
    await expect(
      loadBundle(readFileSync(at('b.tar')), { trust: new Map(), highWater: null }),
    ).rejects.toMatchObject({ code: 'bundle.unsigned' })
    const args = ['--point', 'session.open', '--input', at('input.json')]
    const ran = await policy('eval', at('b.tar'), ...args, '--explain')
    expect(ran.out).toMatch(/effect +deny\nbecause +grant\.live.*\nnot +process\.mismatch/)
    expect(ran.out).toMatch(/deny {2}_process_denial {2}policy\/rules\/access\.rego:\d+/)
    expect(ran.out).toMatch(
      /failed {2}policy\/rules\/access\.rego:\d+ {2}owner\[fact\] in input\.process\.expect\[fact\] {3}with fact="uid"/,
    )
    expect(ran.out).toMatch(/did not apply: .*lock\.active/)
    const wrong = await policy('eval', at('b.tar'), '--point', 'x', '--input', at('input.json'))
    expect([wrong.code, wrong.err.includes('one of device.enroll')]).toEqual([2, true])
  })
})

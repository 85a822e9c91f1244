/** `.ci/run` with every program it calls replaced by one that only says so. */
import { spawnSync } from 'node:child_process'
import { chmod, cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')

interface Machine {
  readonly tests?: string
  readonly testStatus?: number
  readonly failing?: string
  readonly CI?: string
}

/** Runs a copy of the script in a folder of its own; stub programs first in PATH, nothing else is called. */
async function run({
  tests = '3 passed, 0 failed',
  testStatus = 0,
  failing = 'nothing',
  CI = 'true',
}: Machine) {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-ci-'))
  try {
    await cp(join(root, '.ci'), join(folder, '.ci'), { recursive: true })
    await mkdir(join(folder, 'bin'))
    await mkdir(join(folder, 'policy/default'), { recursive: true })
    await writeFile(join(folder, 'policy/default/lock.json'), '{\n  "opa": "1.2.3"\n}\n')
    // More than a pipe holds: a step that reads only the first line would end the run (SIGPIPE).
    const opa = "#!/bin/sh\\necho Version: 1.2.3; head -c 200000 /dev/zero | tr '\\\\0' x"
    const say = `echo "called: \${0##*/} $*"\n[[ "\${0##*/} $*" != *"${failing}"* ]] || exit 9\n`
    const stubs = {
      'apt-get': say,
      node: say,
      go: `${say}mkdir -p "$GOBIN"; printf "${opa}" > "$GOBIN/opa"; chmod +x "$GOBIN/opa"\n`,
      npm: `${say}if [[ $1 == test ]]; then printf '%s\\n' "$TESTS"; exit "$STATUS"; fi\n`,
    }
    for (const [name, body] of Object.entries(stubs)) {
      await writeFile(join(folder, 'bin', name), `#!/usr/bin/env bash\n${body}`)
      await chmod(join(folder, 'bin', name), 0o755)
    }
    const env = {
      PATH: `${join(folder, 'bin')}:/usr/bin:/bin`,
      HOME: folder,
      TMPDIR: folder,
      TESTS: tests,
      STATUS: String(testStatus),
      CI,
    }
    const { stdout, status } = spawnSync('bash', [join(folder, '.ci/run')], {
      cwd: '/',
      env,
      encoding: 'utf8',
    })
    const lines = stdout.trimEnd().split('\n')
    return {
      status,
      stdout,
      last: lines.at(-1),
      called: lines.filter((line) => line.startsWith('called: ')),
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}

test('every step in order, and the tally last', async () => {
  const { status, last, called, stdout } = await run({})
  const steps = called
    .map((line) => line.replace('called: ', ''))
    .filter((line) => !line.startsWith('apt-get'))
    .map((line) => line.replace(/--prefix \S+/, '--prefix DIR'))
  expect(steps).toEqual([
    'go install github.com/open-policy-agent/opa@v1.2.3',
    'go install github.com/globalsign/est/cmd/estclient',
    'node test/house/lockfile.mjs',
    'npm ci --no-audit --no-fund',
    'npm install --no-audit --no-fund --prefix DIR pkcs11js@2.1.7',
    'npm run check',
    'npm test',
    'npm run demo -- --check',
  ])
  expect(stdout).toMatch(/^check +\d+ s$/m)
  expect({ status, last }).toEqual({ status: 0, last: '3 passed, 0 failed' })
})

test('skipped tests fail it, by name, where CI is true', async () => {
  const tests = 'skipped: test/a.test.ts > needs curl\n3 passed, 0 failed, 1 skipped'
  const { status, last, stdout, called } = await run({ tests })
  expect({ status, last }).toEqual({ status: 1, last: '3 passed, 0 failed, 1 skipped' })
  expect(stdout).toContain('nothing may be skipped there:\nskipped: test/a.test.ts > needs curl\n')
  expect(called.at(-1)).toBe('called: npm test')
})

test('skipped tests are fine elsewhere', async () => {
  const { status, last } = await run({ tests: '3 passed, 0 failed, 1 skipped', CI: '' })
  expect({ status, last }).toEqual({ status: 0, last: '3 passed, 0 failed, 1 skipped' })
})

test.for<[string, Machine, string]>([
  ['a failing test', { tests: '2 passed, 1 failed', testStatus: 1 }, '2 passed, 1 failed'],
  ['a run without a tally', { tests: 'nothing to say' }, '0 passed, 1 failed'],
  ['a failing gate', { failing: 'npm run check' }, '0 passed, 1 failed'],
  ['a bad lockfile', { failing: 'node test/house/lockfile.mjs' }, '0 passed, 1 failed'],
  ['a failing demo', { failing: 'npm run demo' }, '3 passed, 0 failed'],
  ['a compiler that does not build', { failing: 'go install' }, '0 passed, 1 failed'],
])('%s fails it, and the tally is still the last line', async ([, machine, tally]) => {
  const { status, last, stdout } = await run(machine)
  expect(last).toBe(tally)
  expect(status).not.toBe(0)
  expect(stdout).toMatch(/^failed at: \w+ \(exit \d+\)$/m)
})

/** A file that tells nothing for too long: it is named, what it waits for is ended, and the run goes on. */
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { freePort } from '../support/port.ts'

const root = join(import.meta.dirname, '../..')

/** The reporter with its patience cut to seconds. */
const hasty = { lookMs: 200, childrenMs: 10_000, workerMs: 20_000, lateMs: 1_000 }
const at = (name: string) => join(root, 'test/support', name)
const config = `export default {
  test: {
    experimental: { viteModuleRunner: false },
    pool: 'forks',
    maxWorkers: 1,
    reporters: ${JSON.stringify(['default', [at('stuck.ts'), hasty], at('tally.ts')])},
  },
}`

/** Runs vitest over a file that gets stuck, others like it and one that does not, in a folder of their own. */
async function run(source: string, others: readonly string[] = []) {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-stuck-'))
  try {
    await mkdir(join(folder, 'test'))
    await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
    const text = `import { spawnSync } from 'node:child_process'\nimport { test } from 'vitest'\n${source}`
    const files = {
      'package.json': '{"type":"module"}',
      'vitest.config.ts': config,
      'test/a.test.ts': `import { test } from 'vitest'\ntest('fine', () => {})\n`,
      'test/b.test.ts': text,
      ...Object.fromEntries(others.map((name) => [`test/${name}.test.ts`, text])),
    }
    for (const [name, holds] of Object.entries(files)) await writeFile(join(folder, name), holds)
    const vitest = join(root, 'node_modules/vitest/vitest.mjs')
    const { status, stdout } = spawnSync(process.execPath, [vitest, 'run'], {
      cwd: folder,
      encoding: 'utf8',
      env: {
        ...process.env,
        NO_COLOR: '1',
        VITEST: undefined,
        VITEST_POOL_ID: undefined,
        // Whoever else on this machine is inspected has the usual one.
        NODE_OPTIONS: `--inspect-port=${await freePort()}`,
      },
      timeout: 100_000,
    })
    return { status, stdout, last: stdout.trimEnd().split('\n').at(-1) }
  } finally {
    await rm(folder, { recursive: true })
  }
}

test('a child that never returns is shown and ended, and the rows behind it run', async () => {
  const { status, stdout, last } = await run(
    `test('waits', () => { if (spawnSync('sleep', ['600']).status !== 0) throw new Error('ended') })\ntest('next', () => {})`,
  )
  expect(stdout).toMatch(/^stuck: test\/b\.test\.ts, silent for \d+ s since .+ began$/m)
  expect(stdout).toMatch(/^ {2}\d+, \d+ s: S \S+ sleep 600 $/m)
  expect([status, last]).toEqual([1, '2 passed, 1 failed'])
})

test('an endless loop is named with where it is, and its worker goes', async () => {
  const { status, stdout, last } = await run(
    `test('turns', function turning() { for (let at = 0; ; at++) if (at < 0) return })`,
  )
  expect(stdout).toMatch(/^stuck: test\/b\.test\.ts, /m)
  expect(stdout).toMatch(/^ {2}\d+ is at turning \S+b\.test\.ts\S*:\d+$/m)
  expect([status, last]).toEqual([1, '1 passed, 2 failed'])
})

test('a row with a limit of its own may be silent for as long as that', async () => {
  const { status, stdout, last } = await run(
    `test('long', { timeout: 60_000 }, () => { if (spawnSync('sleep', ['15']).status !== 0) throw new Error('ended') })`,
  )
  expect(stdout).not.toMatch(/^stuck: /m)
  expect([status, last]).toEqual([0, '2 passed, 0 failed'])
})

test('files that wait for a worker are not silent', async () => {
  const waits = `test('slow', () => { spawnSync('sleep', ['3']) })`
  const { status, stdout, last } = await run(waits, ['c', 'd', 'e', 'f'])
  expect(stdout).not.toMatch(/^stuck: /m)
  expect([status, last]).toEqual([0, '6 passed, 0 failed'])
})

/** The last line of a run, for every way a run can end. */
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')
const config = `export default {
  test: {
    experimental: { viteModuleRunner: false },
    pool: 'forks',
    reporters: ['default', ${JSON.stringify(join(root, 'test/support/tally.ts'))}],
  },
}`

/** Runs vitest over these sources in a folder of their own; what it printed last, from the first name on. */
async function run(sources: Record<string, string>) {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-tally-'))
  try {
    await mkdir(join(folder, 'test'))
    await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
    await writeFile(join(folder, 'package.json'), '{"type":"module"}')
    await writeFile(join(folder, 'vitest.config.ts'), config)
    for (const [name, source] of Object.entries(sources))
      await writeFile(
        join(folder, 'test', name),
        `import { afterAll, beforeAll, describe, expect, test } from 'vitest'\n${source}`,
      )
    const vitest = join(root, 'node_modules/vitest/vitest.mjs')
    const { status, stdout } = spawnSync(process.execPath, [vitest, 'run'], {
      cwd: folder,
      encoding: 'utf8',
      env: { ...process.env, NO_COLOR: '1', VITEST: undefined, VITEST_POOL_ID: undefined },
    })
    const lines = stdout.trimEnd().split('\n')
    return {
      status,
      last: lines.at(-1),
      named: lines.filter((line) => /^(?:skipped|never ran|broken): /.test(line)),
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}

const pass = `test('a', () => {})\n`

test('all passed: nothing is said of skipping', async () => {
  expect(await run({ 'a.test.ts': pass })).toEqual({
    status: 0,
    last: '1 passed, 0 failed',
    named: [],
  })
})

test('what was skipped is named, with its reason', async () => {
  const source = `${pass}test.skipIf(true)('b', () => {})\ntest('c', (context) => context['skip']('no curl'))\ntest.todo('d')`
  expect(await run({ 'a.test.ts': source })).toEqual({
    status: 0,
    last: '1 passed, 0 failed, 3 skipped',
    named: [
      'skipped: test/a.test.ts > b',
      'skipped: test/a.test.ts > c (no curl)',
      'skipped: test/a.test.ts > d',
    ],
  })
})

test.for<[string, string, string, string[]]>([
  ['a test fails', `test('a', () => expect(1).toBe(2))`, '0 passed, 1 failed', []],
  [
    'a file does not load',
    `import './absent.ts'`,
    '0 passed, 1 failed',
    ['broken: test/b.test.ts'],
  ],
  ['a file holds no test', ``, '0 passed, 1 failed', ['broken: test/b.test.ts']],
  [
    'nobody caught an error',
    `test('a', async () => { setTimeout(() => { throw new Error() }); await new Promise((done) => setTimeout(done, 50)) })`,
    '1 passed, 1 failed',
    [],
  ],
  [
    'a hook keeps tests from running',
    `describe('s', () => { beforeAll(() => { throw new Error() }); test('a', () => {}); test('b', () => {}) })`,
    '0 passed, 2 failed',
    [
      'never ran: test/b.test.ts > s > a',
      'never ran: test/b.test.ts > s > b',
      'broken: test/b.test.ts > s',
    ],
  ],
  [
    'a hook of the file throws',
    `beforeAll(() => { throw new Error() })\n${pass}`,
    '0 passed, 1 failed',
    ['never ran: test/b.test.ts > a', 'broken: test/b.test.ts'],
  ],
  [
    'a hook throws afterwards',
    `afterAll(() => { throw new Error() })\n${pass}`,
    '1 passed, 1 failed',
    ['broken: test/b.test.ts'],
  ],
  [
    'the worker dies',
    `test('a', () => process.kill(process.pid, 'SIGKILL'))`,
    '0 passed, 2 failed',
    ['never ran: test/b.test.ts > a'],
  ],
])('%s: the run failed', async ([, source, last, named]) => {
  expect(await run({ 'b.test.ts': source })).toEqual({ status: 1, last, named })
})

test('no test file at all is a failure', async () => {
  expect(await run({})).toEqual({
    status: 1,
    last: '0 passed, 1 failed',
    named: ['broken: no test file was found'],
  })
})

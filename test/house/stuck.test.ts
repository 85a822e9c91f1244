/** A file that tells nothing for too long: it is named, what it waits for is ended, and the run goes on. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import type { TestCase, TestModule } from 'vitest/node'
import Stuck from '../support/stuck.ts'
import { freePort } from '../support/port.ts'

const root = join(import.meta.dirname, '../..')

/** The reporter with its patience cut to seconds. */
const hasty = { lookMs: 200, childrenMs: 8_000, workerMs: 40_000, lateMs: 1_000 }
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
    const child = spawn(process.execPath, [vitest, 'run'], {
      cwd: folder,
      env: {
        ...process.env,
        NO_COLOR: '1',
        VITEST: undefined,
        VITEST_POOL_ID: undefined,
        // Whoever else on this machine is inspected has the usual one.
        NODE_OPTIONS: `--inspect-port=${await freePort()}`,
      },
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 110_000,
    })
    let stdout = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    const [status] = (await once(child, 'close')) as [number | null]
    return { status, stdout, last: stdout.trimEnd().split('\n').at(-1) }
  } finally {
    await rm(folder, { recursive: true })
  }
}

test.concurrent('a child that never returns is shown and ended, and the rows behind it run', async () => {
  const { status, stdout, last } = await run(
    `test('waits', () => { if (spawnSync('sleep', ['600']).status !== 0) throw new Error('ended') })\ntest('next', () => {})`,
  )
  expect(stdout).toMatch(/^stuck: test\/b\.test\.ts, silent for \d+ s since .+ began$/m)
  expect(stdout).toMatch(/^ {2}\d+, \d+ s: S \S+ sleep 600 $/m)
  expect([status, last]).toEqual([1, '2 passed, 1 failed'])
})

test.concurrent('an endless loop is named with where it is, and its worker goes', async () => {
  const { status, stdout, last } = await run(
    // Without end, and without the processor that others want.
    `const word = new Int32Array(new SharedArrayBuffer(4))
test('turns', function turning() { for (;;) Atomics.wait(word, 0, 0, 20) })`,
  )
  expect(stdout).toMatch(/^stuck: test\/b\.test\.ts, /m)
  expect(stdout).toMatch(/^ {2}\d+ is at turning \S+b\.test\.ts\S*:\d+$/m)
  expect([status, last]).toEqual([1, '1 passed, 2 failed'])
})

test.concurrent('a row with a limit of its own may be silent for as long as that', async () => {
  const { status, stdout, last } = await run(
    `test('long', { timeout: 60_000 }, () => { if (spawnSync('sleep', ['15']).status !== 0) throw new Error('ended') })`,
  )
  expect(stdout).not.toMatch(/^stuck: /m)
  expect([status, last]).toEqual([0, '2 passed, 0 failed'])
})

test.concurrent('files that wait for a worker are not silent', async () => {
  const waits = `test('slow', () => { spawnSync('sleep', ['3']) })`
  const { status, stdout, last } = await run(waits, ['c', 'd', 'e', 'f'])
  expect(stdout).not.toMatch(/^stuck: /m)
  expect([status, last]).toEqual([0, '6 passed, 0 failed'])
})

test('of a file that has ended a row may be told afterwards: it is not waited for', () => {
  vi.useFakeTimers()
  const said = vi.spyOn(console, 'log').mockImplementation(() => {})
  try {
    const reporter = new Stuck({ lookMs: 100, childrenMs: 1_000, workerMs: 2_000, lateMs: 0 })
    const module = { relativeModuleId: 'test/a.test.ts' } as TestModule
    const late = { module, fullName: 'fine' } as TestCase
    reporter.onTestModuleQueued(module)
    reporter.onTestModuleEnd(module)
    reporter.onTestCaseResult(late)
    vi.advanceTimersByTime(1_500)
    expect(said.mock.calls).toEqual([])
    reporter.onTestModuleQueued({ relativeModuleId: 'test/b.test.ts' } as TestModule)
    vi.advanceTimersByTime(1_500)
    expect(said.mock.calls).toEqual([
      ['stuck: test/b.test.ts, silent for 1 s since its import began'],
    ])
    reporter.onTestRunEnd()
  } finally {
    said.mockRestore()
    vi.useRealTimers()
  }
})

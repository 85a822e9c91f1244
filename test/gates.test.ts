/**
 * A gate that sees nothing passes. So a small tree with the real configuration goes through
 * `npm run check` clean, and again with one violation planted for each thing a gate must see.
 */
import { spawn } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')
const bin = join(root, 'node_modules/.bin')
const CONFIGS = ['.oxfmtrc.json', '.oxlintrc.json', 'tsconfig.json']
const SMALL = ['agent-tunnel/mux', 'agent-tunnel/ot', 'ca/der']
const folders: string[] = []

afterAll(async () => {
  for (const folder of folders) await rm(folder, { recursive: true })
})

/** A tree of its own with this project's configuration and these files. */
async function plant(sources: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-gates-'))
  folders.push(folder)
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  for (const name of CONFIGS) await copyFile(join(root, name), join(folder, name))
  const files = {
    'package.json': '{\n  "name": "planted",\n  "private": true,\n  "type": "module"\n}\n',
    'knip.json': await knipConfig(),
    ...sources,
  }
  for (const [path, source] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), source)
  }
  return folder
}

/** The project's, with an entry that this tree has and without what only package.json explains. */
async function knipConfig(): Promise<string> {
  const { project } = JSON.parse(await readFile(join(root, 'knip.json'), 'utf8')) as {
    project: string[]
  }
  return `{\n  "entry": ["cli/entry.ts"],\n  "project": ${JSON.stringify(project)}\n}\n`
}

async function command(folder: string, name: string, args: readonly string[]) {
  const env = { ...process.env, NO_COLOR: '1', PATH: [bin, process.env['PATH']].join(delimiter) }
  const child = spawn(name, args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (out += chunk))
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (out += chunk))
  const status = await new Promise<number | null>((done) => child.on('close', done))
  // Where CI is set, oxfmt colours whatever NO_COLOR says.
  return { status, out: stripVTControlCharacters(out) }
}

function check(folder: string) {
  return command(folder, process.execPath, [join(root, 'test/support/check.mjs'), folder])
}

const CLEAN = {
  'cli/entry.ts': `import { double } from './double.ts'\n\nconsole.log(double(2))\n`,
  'cli/double.ts': `export function double(value: number): number {\n  return value * 2\n}\n`,
}

describe('npm run check', () => {
  test('passes a clean tree, and says how many files each gate saw', async () => {
    const { status, out } = await check(await plant(CLEAN))
    expect(out).toMatch(/^ok {4}knip +[\d.]+ s {2}2 files$/m)
    expect(out).toMatch(/^ok {4}oxlint +[\d.]+ s {2}2 files$/m)
    expect(out).toMatch(/^ok {4}oxfmt +[\d.]+ s {2}\d+ files$/m)
    expect(out).toMatch(/^ok {4}tsc \. +[\d.]+ s {2}2 files$/m)
    expect(out).toMatch(/^check passed in [\d.]+ s$/m)
    expect(status).toBe(0)
  })

  test('fails each gate by what it alone can see, and prints it', async () => {
    const folder = await plant({
      ...CLEAN,
      'cli/entry.ts': `import { double } from './double.ts'\n\nconsole.log(double('2'))\n`,
      'cli/ugly.ts': `export const  ugly = "yes";\n`,
      'cli/thrower.ts': `throw 'a string'\n`,
    })
    const { status, out } = await check(folder)
    expect(status).toBe(1)
    expect(out).toMatch(/^FAIL {2}tsc \. /m)
    expect(out).toMatch(/^cli\/entry\.ts\(3,20\): error TS2345/m)
    expect(out).toMatch(/^FAIL {2}oxlint /m)
    expect(out).toContain('typescript(only-throw-error)')
    expect(out).toMatch(/^FAIL {2}oxfmt /m)
    expect(out).toMatch(/^cli\/ugly\.ts \(/m)
    expect(out).toMatch(/^FAIL {2}knip /m)
    expect(out).toMatch(/^Unused files \(2\)\ncli\/thrower\.ts *\ncli\/ugly\.ts/m)
    expect(out).toMatch(/^check failed in /m)
  })

  test('fails an export that nobody uses, and a package nobody listed', async () => {
    const folder = await plant({
      ...CLEAN,
      'cli/double.ts': `import 'undici'\n\n${CLEAN['cli/double.ts']}\nexport const triple = 3\n`,
    })
    const { status, out } = await check(folder)
    expect(status).toBe(1)
    expect(out).toMatch(/^Unused exports \(1\)\ntriple /m)
    expect(out).toMatch(/^Unlisted dependencies \(1\)\nundici /m)
  })

  test('fails every gate that saw no files', async () => {
    const { status, out } = await check(await plant({}))
    expect(status).toBe(1)
    for (const gate of ['knip', 'oxlint', 'tsc \\.'])
      expect(out).toMatch(new RegExp(`^FAIL {2}${gate} .* 0 files`, 'm'))
  })

  test('fails a gate whose configuration hides files from it', async () => {
    const folder = await plant(CLEAN)
    for (const name of ['.oxfmtrc.json', '.oxlintrc.json']) {
      const config = await readFile(join(folder, name), 'utf8')
      const hiding = config.replace(/"ignorePatterns": \[/, '$&"cli/double.ts", ')
      await writeFile(join(folder, name), hiding)
    }
    const { status, out } = await check(folder)
    expect(status).toBe(1)
    expect(out).toMatch(/^FAIL {2}oxlint .* 1 files$/m)
    expect(out).toContain('saw 1 files where there are at least 2')
  })

  test('fails a source that belongs to no program', async () => {
    const { status, out } = await check(await plant({ ...CLEAN, 'tools/a.ts': 'export {}\n' }))
    expect(status).toBe(1)
    expect(out).toMatch(/^--- files that no tsc program compiles\ntools\/a\.ts$/m)
  })

  test('fails a pure room that has lost its own tsconfig', async () => {
    const { status, out } = await check(
      await plant({ ...CLEAN, 'agent-tunnel/ot/a.ts': 'export {}\n' }),
    )
    expect(status).toBe(1)
    expect(out).toMatch(/^FAIL {2}tsc agent-tunnel\/ot /m)
  })

  test.for(SMALL)('in %s neither node:* nor a timer compiles', async (room) => {
    const tsconfig = await readFile(join(root, room, 'tsconfig.json'), 'utf8')
    const folder = await plant({
      [`${room}/tsconfig.json`]: tsconfig,
      [`${room}/one.ts`]: `import { readFileSync } from 'node:fs'\nexport const a = readFileSync\n`,
      [`${room}/two.ts`]: `setTimeout(() => {}, 1)\nexport {}\n`,
      [`${room}/three.ts`]: `export const b: number = 1\n`,
    })
    const { status, out } = await command(folder, 'tsc', ['-p', room, '--pretty', 'false'])
    expect(status).not.toBe(0)
    expect(out).toMatch(/one\.ts\(1,30\): error/)
    expect(out).toMatch(/two\.ts\(1,1\): error/)
    expect(out).not.toContain('three.ts')
  })
})

describe('lint', () => {
  const union = `type Way = 'in' | 'out'\n`
  const rows: { rule: string; path: string; source: string }[] = [
    {
      rule: 'typescript(no-floating-promises)',
      path: 'audit/a.ts',
      source: `async function go(): Promise<void> {}\ngo()\n`,
    },
    {
      rule: 'typescript(no-misused-promises)',
      path: 'audit/b.ts',
      source: `export const b = [1].forEach(async () => {})\n`,
    },
    {
      rule: 'typescript(switch-exhaustiveness-check)',
      path: 'audit/c.ts',
      source: `${union}export function c(way: Way): void {\n  switch (way) {\n    case 'in':\n      break\n  }\n}\n`,
    },
    { rule: 'typescript(only-throw-error)', path: 'audit/d.ts', source: `throw 'd'\n` },
    {
      rule: 'typescript(strict-boolean-expressions)',
      path: 'audit/e.ts',
      source: `export const e = (name?: string): number => (name ? 1 : 0)\n`,
    },
    {
      rule: 'typescript(no-explicit-any)',
      path: 'audit/f.ts',
      source: `export const f: any = 1\n`,
    },
    {
      rule: 'typescript(no-non-null-assertion)',
      path: 'audit/g.ts',
      source: `export const g = (name?: string): string => name!\n`,
    },
    {
      rule: 'typescript(consistent-type-imports)',
      path: 'audit/h.ts',
      source: `import { Way } from './way.ts'\nexport const h: Way = 'in'\n`,
    },
    {
      rule: 'import(no-cycle)',
      path: 'audit/i.ts',
      source: `import { j } from './j.ts'\nexport const i = (): number => j()\n`,
    },
    { rule: 'import(no-default-export)', path: 'audit/k.ts', source: `export default 1\n` },
    { rule: 'eslint(no-unused-vars)', path: 'audit/l.ts', source: `const l = 1\nexport {}\n` },
    {
      rule: 'eslint(eqeqeq)',
      path: 'audit/m.ts',
      source: `export const m = (a: number): boolean => a == 1\n`,
    },
    {
      rule: 'eslint(no-restricted-properties)',
      path: 'agent-tunnel/mux/n.ts',
      source: `export const n = (): number => Date.now()\n`,
    },
    {
      rule: 'eslint(no-restricted-properties)',
      path: 'ca/o.ts',
      source: `export const o = (): number => Math.random()\n`,
    },
    {
      rule: 'eslint(no-restricted-properties)',
      path: 'policy/p.ts',
      source: `export const p = (): number => Date.now()\n`,
    },
    {
      rule: 'eslint(no-restricted-properties)',
      path: 'audit/format/q.ts',
      source: `export const q = (): number => Date.now()\n`,
    },
    {
      rule: 'eslint(max-lines-per-function)',
      path: 'audit/r.ts',
      source: `export function r(): void {\n${'  console.log(1)\n'.repeat(51)}}\n`,
    },
  ]
  const found: { code: string; filename: string; severity: string }[] = []

  beforeAll(async () => {
    const folder = await plant({
      'audit/way.ts': `export ${union}`,
      'audit/j.ts': `import { i } from './i.ts'\nexport const j = (): number => i()\n`,
      ...Object.fromEntries(rows.map(({ path, source }) => [path, source])),
    })
    const { out } = await command(folder, 'oxlint', ['--type-aware', '--format', 'json'])
    found.push(...(JSON.parse(out) as { diagnostics: typeof found }).diagnostics)
  })

  test.for(rows)('$rule sees $path', ({ rule, path }) => {
    const hits = found.filter(({ code, filename }) => code === rule && filename === path)
    expect(hits).not.toEqual([])
    const severity = rule === 'eslint(max-lines-per-function)' ? 'warning' : 'error'
    expect(hits[0]?.severity).toBe(severity)
  })

  test('the clock is allowed where a room is not pure', async () => {
    const folder = await plant({ 'audit/a.ts': `export const a = (): number => Date.now()\n` })
    const { status } = await command(folder, 'oxlint', ['--type-aware'])
    expect(status).toBe(0)
  })
})

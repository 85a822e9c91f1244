/** Imports run one way, rooms meet at doors, and pure rooms own no clock: checked on every source. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { files, isSource } from './house/tree.mjs'
import { complaints, doorComplaints, loadedWith, rooms, type House } from './house/walls.ts'

const root = join(import.meta.dirname, '..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const manifest = JSON.parse(read('package.json')) as {
  imports: Record<string, string>
  dependencies: Record<string, string>
  devDependencies: Record<string, string>
}
const house: House = {
  doors: manifest.imports,
  runtime: Object.keys(manifest.dependencies),
  development: Object.keys(manifest.devDependencies),
}
const sources = files(root).filter(isSource)

test('there is something to check in every room that is built', () => {
  const built = rooms.filter(({ folder }) => existsSync(join(root, folder)))
  const empty = built.filter(({ folder }) => !sources.some((path) => path.startsWith(`${folder}/`)))
  expect(built.length).toBeGreaterThan(12)
  expect(empty.map(({ folder }) => folder)).toEqual([])
})

test('every source keeps to its room', () => {
  expect(sources.flatMap((path) => complaints(path, read(path), house))).toEqual([])
})

test('nothing is put off, switched off or run alone', () => {
  const words =
    /\b(?:TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b|\b(?:test|it|describe|suite|context)\.(?:ski[p]|onl[y])\(/
  const found = sources.flatMap((path) =>
    read(path)
      .split('\n')
      .flatMap((line, at) => (words.test(line) ? [`${path}:${at + 1}: ${line.trim()}`] : [])),
  )
  expect(found).toEqual([])
})

describe('doors', () => {
  test.for(Object.entries(house.doors))('%s is a page of named re-exports', ([name, target]) => {
    const path = target.replace('./', '')
    expect(existsSync(join(root, path)), `${name} has no ${path}`).toBe(true)
    expect(doorComplaints(name, path, read(path))).toEqual([])
  })
})

test('starting the command loads no room', () => {
  const source = (path: string) => (existsSync(join(root, path)) ? read(path) : undefined)
  const loaded = loadedWith('cli/main.ts', source)
  expect(loaded.files).toContain('cli/main.ts')
  expect(loaded.others.filter((name) => name.startsWith('#'))).toEqual([])
  expect(
    loaded.files.filter((path) => !path.startsWith('cli/') && path !== 'package.json'),
  ).toEqual([])
})

describe('a planted violation is found', () => {
  const rows: { path: string; source: string; finds: RegExp }[] = [
    {
      path: 'agent-tunnel/mux/a.ts',
      source: `import fs from 'node:fs'`,
      finds: /mux may not import node:fs/,
    },
    {
      path: 'agent-tunnel/mux/a.ts',
      source: `import type { Cert } from '#ca'`,
      finds: /mux may not import #ca/,
    },
    {
      path: 'agent-tunnel/mux/a.ts',
      source: `const t = Date.now()`,
      finds: /Date\.now in a pure room/,
    },
    { path: 'agent-tunnel/mux/a.ts', source: `const t = new Date()`, finds: /new Date\(\)/ },
    { path: 'agent-tunnel/mux/a.ts', source: `Math['random']()`, finds: /Math\.random/ },
    {
      path: 'agent-tunnel/ot/a.ts',
      source: `setTimeout(f, 1)`,
      finds: /setTimeout in a pure room/,
    },
    {
      path: 'agent-tunnel/transport/a.ts',
      source: `export { a } from '../mux/frame.ts'`,
      finds: /meet at doors/,
    },
    { path: 'agent-tunnel/transport/a.ts', source: `import '#est'`, finds: /may not import #est/ },
    { path: 'agent-tunnel/agent/a.ts', source: `await import('#ca')`, finds: /may not import #ca/ },
    {
      path: 'agent-tunnel/agent/a.ts',
      source: `import { c } from 'undici'`,
      finds: /may not import undici/,
    },
    {
      path: 'ca/a.ts',
      source: `import { readFileSync } from 'node:fs'`,
      finds: /ca may not import node:fs/,
    },
    {
      path: 'ca/a.ts',
      source: `import { randomBytes } from 'node:crypto'\nrandomBytes(8)`,
      finds: /:2: randomBytes/,
    },
    { path: 'ca/der/a.ts', source: `import 'node:crypto'`, finds: /ca\/der may not import/ },
    {
      path: 'ca/client/a.ts',
      source: `import { issue } from '../issue.ts'`,
      finds: /may not reach into ca;/,
    },
    {
      path: 'policy/a.ts',
      source: `import { build } from './toolchain/build.ts'`,
      finds: /may not reach into policy\/toolchain/,
    },
    { path: 'policy/a.ts', source: `import '#audit'`, finds: /may not import #audit/ },
    { path: 'audit/a.ts', source: `import 'pino'`, finds: /audit may not import pino/ },
    { path: 'audit/format/a.ts', source: `performance.now()`, finds: /performance\.now/ },
    {
      path: 'gateway/api/a.ts',
      source: `import { Log } from '#audit'`,
      finds: /may not import #audit/,
    },
    {
      path: 'gateway/grants/a.ts',
      source: `import { x } from '../listen/api.ts'`,
      finds: /never the reverse/,
    },
    { path: 'gateway/grants/a.ts', source: `process.env['HOME']`, finds: /process\.env/ },
    {
      path: 'gateway/grants/a.ts',
      source: `import { env } from 'node:process'`,
      finds: /process\.env/,
    },
    { path: 'gateway/a.ts', source: `import { vi } from 'vitest'`, finds: /may not import vitest/ },
    { path: 'gateway/a.ts', source: `import '../cli/main.ts'`, finds: /may not reach into cli/ },
    { path: 'gateway/a.ts', source: `await import(name)`, finds: /computed name/ },
    {
      path: 'gateway/a.ts',
      source: `new URL('../audit/writer.ts', import.meta.url)`,
      finds: /may not reach into audit/,
    },
    {
      path: 'cli/a.ts',
      source: `import { log } from '../audit/log.ts'`,
      finds: /may not reach into audit/,
    },
    { path: 'gateway/a.ts', source: `export default 1`, finds: /exports have names/ },
    { path: 'gateway/a.ts', source: `export * from './b.ts'`, finds: /exports have names/ },
    { path: 'tools/a.ts', source: ``, finds: /no room is listed/ },
  ]
  test.for(rows)('$path: $source', ({ path, source, finds }) => {
    expect(complaints(path, source, house).join('\n')).toMatch(finds)
  })

  test('what the table allows passes', () => {
    const fine: [string, string][] = [
      ['agent-tunnel/mux/a.ts', `import { b } from './b.ts'`],
      [
        'agent-tunnel/agent/scope/a.ts',
        `import { connect } from '#tunnel'; import { run } from '../dial.ts'`,
      ],
      [
        'ca/client/a.ts',
        `import { read } from '../der/reader.ts'; import { sign } from 'node:crypto'`,
      ],
      ['ca/a.ts', `import { read } from './der/reader.ts'; const d = new Date(now)`],
      ['policy/toolchain/a.ts', `import { points } from '../points.ts'; import fs from 'node:fs'`],
      ['gateway/listen/a.ts', `import { grants } from '../grants/request.ts'; import '#policy'`],
      ['gateway/a.ts', `import { listen } from './listen/api.ts'`],
      ['gateway/config.ts', `process.env['A']`],
      [
        'test/mux/a.test.ts',
        `import { f } from '../../agent-tunnel/mux/frame.ts'; import 'vitest'; import('a' + b)`,
      ],
    ]
    for (const [path, source] of fine) expect(complaints(path, source, house), path).toEqual([])
  })

  test('a door that does more than re-export', () => {
    expect(
      doorComplaints('#a', 'a/index.ts', `export { a } from './a.ts'\nexport const b = 1`),
    ).toHaveLength(1)
    expect(doorComplaints('#a', 'a/index.ts', `export * from './a.ts'`)).toHaveLength(1)
    expect(doorComplaints('#a', 'a/door.ts', `export { a } from './a.ts'`)).toHaveLength(1)
    expect(doorComplaints('#a', 'a/index.ts', ``)).toHaveLength(1)
    expect(
      doorComplaints(
        '#a',
        'a/index.ts',
        `/** A. */\nexport { a, type B } from './a.ts'\nexport type { C } from './c.ts'`,
      ),
    ).toEqual([])
  })

  test('a room that loads with the command', () => {
    const tree: Record<string, string> = {
      'cli/main.ts': `import './a.ts'; import type { T } from '#ca'; const c = () => import('#policy')`,
      'cli/a.ts': `import { log } from '#audit'`,
    }
    expect(loadedWith('cli/main.ts', (path) => tree[path])).toEqual({
      files: ['cli/a.ts', 'cli/main.ts'],
      others: ['#audit'],
    })
  })
})

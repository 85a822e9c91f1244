/** Pages are true: their code compiles, their links lead somewhere, the commands they name exist. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  anchors,
  code,
  fences,
  invocations,
  links,
  misused,
  scripts,
  type Fence,
} from './house/pages.ts'
import { files } from './house/tree.mjs'

const root = join(import.meta.dirname, '..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const tree = files(root)
const pages = tree.filter((path) => path.endsWith('.md'))

test('there are pages to check', () => {
  expect(pages).toContain('README.md')
  expect(pages.filter((path) => path.startsWith('docs/')).length).toBeGreaterThan(2)
})

interface Example extends Fence {
  readonly path: string
}

/** Compiles each example as a module beside the project's own rooms; the compiler's complaints. */
async function compile(examples: readonly Example[]): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-docs-'))
  try {
    for (const entry of readdirSync(root))
      if (!['data', 'coverage', 'tsconfig.json', '.git'].includes(entry))
        await symlink(join(root, entry), join(folder, entry))
    const options = { extends: join(root, 'tsconfig.json'), include: ['example/*.ts'], exclude: [] }
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(options))
    await mkdir(join(folder, 'example'))
    await writeFile(join(folder, 'example', 'none.ts'), 'export {}\n')
    // An example may leave what it shows unused, and without an import it is a module all the same.
    for (const [at, { text }] of examples.entries())
      await writeFile(join(folder, 'example', `${at}.ts`), `${text}\nexport {}\n`)
    const args = [
      '-p',
      '.',
      '--pretty',
      'false',
      '--noUnusedLocals',
      'false',
      '--noUnusedParameters',
      'false',
    ]
    const { stdout, status } = spawnSync(join(root, 'node_modules/.bin/tsc'), args, {
      cwd: folder,
      encoding: 'utf8',
    })
    const own = stdout.split('\n').filter((line) => line.startsWith('example/'))
    if (status !== 0 && own.length === 0 && !stdout.includes('.ts(')) return [stdout]
    return own.map((line) => {
      const [, number, row, rest] = /^example\/(\d+)\.ts\((\d+),\d+\): (.*)$/.exec(line) ?? []
      const example = examples[Number(number)]
      return `${example?.path}:${(example?.line ?? 0) + Number(row) - 1}: ${rest}`
    })
  } finally {
    await rm(folder, { recursive: true })
  }
}

describe('examples', () => {
  test('every ts fence compiles against the project', async () => {
    const examples = pages.flatMap((path) =>
      fences(read(path))
        .filter(({ language }) => language === 'ts' || language === 'typescript')
        .map((fence) => ({ ...fence, path })),
    )
    expect(await compile(examples)).toEqual([])
  })

  test('one that does not compile is named with its line', async () => {
    const text = `import type { Row } from './../bench/row.ts'\nconst row: Row = {}\n`
    expect(await compile([{ path: 'a.md', line: 10, language: 'ts', text }])).toEqual([
      expect.stringMatching(/^a\.md:11: error TS2739/),
    ])
  })
})

/** Links of a page that lead nowhere. */
function broken(path: string, text: string): string[] {
  return links(text).flatMap((link) => {
    if (/^[a-z][a-z+.-]*:/.test(link)) return []
    const [file = '', anchor] = link.split('#')
    const target =
      file === '' ? join(root, path) : resolve(root, dirname(path), decodeURIComponent(file))
    if (file !== '' && !existsSync(target)) return [`${path}: ${link} does not exist`]
    if (anchor === undefined || !target.endsWith('.md')) return []
    const page = file === '' ? text : readFileSync(target, 'utf8')
    return anchors(page).includes(anchor) ? [] : [`${path}: ${link} has no such heading`]
  })
}

describe('links', () => {
  test('every relative link leads to a file, and to a heading of it', () => {
    expect(pages.flatMap((path) => broken(path, read(path)))).toEqual([])
  })

  test('a link that leads nowhere is found', () => {
    const text =
      '# Here\n[a](absent.md) [b](#here) [c](#there) [d](../package.json) [e](https://example.test/x)'
    expect(broken('docs/a.md', text)).toEqual([
      'docs/a.md: absent.md does not exist',
      'docs/a.md: #there has no such heading',
    ])
  })
})

describe('commands', () => {
  const known = Object.keys((JSON.parse(read('package.json')) as { scripts: object }).scripts)

  test('every npm script that a page names exists', () => {
    const named = pages.flatMap((path) =>
      code(read(path))
        .flatMap(scripts)
        .map((name) => ({ path, name })),
    )
    expect(named.filter(({ name }) => !known.includes(name))).toEqual([])
  })

  test('every sallyport command that a page names exists', async () => {
    const { buildProgram } = await import('../cli/main.ts')
    const program = buildProgram()
    const wrong = pages.flatMap((path) =>
      code(read(path))
        .flatMap(invocations)
        .map((words) => ({
          path,
          line: `sallyport ${words.join(' ')}`,
          why: misused(program, words),
        })),
    )
    expect(wrong.filter(({ why }) => why !== undefined)).toEqual([])
  })
})

// Written in two parts, so that this file does not find itself.
const WORKPLACES = ['wo' + 'rk', 'ro' + 'ot', 'ho' + 'me/[a-z]\\w*'].join('|')
const LOCAL = new RegExp(`(?<![\\w.~$}@:-])/(?:${WORKPLACES})(?=[/\\s'"\`),;:]|$)`, 'm')
const REGISTRIES = [
  'regis' + 'try\\.(?:npm|yarn)',
  'npm' + 'js\\.(?:org|com)',
  'proxy\\.go' + 'lang',
  'verd' + 'accio',
  'arti' + 'factory',
]
const REGISTRY = new RegExp(REGISTRIES.join('|'), 'i')

/** Where a text names a place of one machine, or a host that packages come from. */
function places(path: string, text: string): string[] {
  return text.split('\n').flatMap((line, at) => {
    const hit = LOCAL.exec(line) ?? REGISTRY.exec(line)
    return hit === null ? [] : [`${path}:${at + 1}: ${hit[0]}`]
  })
}

describe('no file names a place of one machine', () => {
  test('no local path and no package registry in the tree', () => {
    const texts = tree
      .map((path) => ({ path, text: read(path) }))
      .filter(({ text }) => !text.includes('\0'))
    expect(texts.length).toBeGreaterThan(20)
    expect(texts.flatMap(({ path, text }) => places(path, text))).toEqual([])
  })

  test('one that does is found', () => {
    const bad = [
      'cd /ro' + 'ot',
      '"/ho' + 'me/me/a"',
      '/wo' + 'rk/main',
      'https://regis' + 'try.npm' + 'js.org/a',
    ]
    for (const line of bad) expect(places('a', line), line).toHaveLength(1)
    for (const line of ['/workers/1', 'a/work', '/roots', 'https://a.test/home', '/opt/sallyport'])
      expect(places('a', line), line).toEqual([])
  })
})

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { files, isSource } from './tree.mjs'

test('what .gitignore leaves out is left out, and only that', async () => {
  const ignored = await readFile(join(import.meta.dirname, '../../.gitignore'), 'utf8')
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-tree-'))
  try {
    const planted = ignored
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (line.endsWith('/') ? `${line}a.ts` : line.replace('*', 'a')))
    const kept = ['a.ts', '.ci/run', 'gateway/data/a.ts', 'gateway/b.mjs']
    for (const path of [...planted, ...kept, 'gateway/node_modules/a/a.ts', '.git/a.ts']) {
      await mkdir(dirname(join(folder, path)), { recursive: true })
      await writeFile(join(folder, path), '')
    }
    expect(files(folder)).toEqual(kept.toSorted())
  } finally {
    await rm(folder, { recursive: true })
  }
})

test.for<[string, boolean]>([
  ['gateway/main.ts', true],
  ['cli/bin.mjs', true],
  ['console/app.ts', false],
  ['docs/a.md', false],
  ['policy/a.rego', false],
])('%s is a source: %s', ([path, is]) => expect(isSource(path)).toBe(is))

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { complaints } from './lockfile.mjs'

const root = join(import.meta.dirname, '../..')
const integrity = `sha512-${'A'.repeat(86)}==`
const good = { version: '1.0.0', integrity }

function judge(entry: object, wanted = '1.0.0'): string[] {
  const packages = { '': {}, 'node_modules/a': entry }
  return complaints(
    JSON.stringify({ lockfileVersion: 3, packages }),
    JSON.stringify({ dependencies: { a: wanted } }),
  )
}

test('the lockfile of this project', () => {
  const read = (name: string) => readFileSync(join(root, name), 'utf8')
  expect(complaints(read('package-lock.json'), read('package.json'))).toEqual([])
})

test.for<[string, string[], string[]]>([
  ['a good package', judge(good), []],
  [
    'an install script',
    judge({ ...good, hasInstallScript: true }),
    ['node_modules/a: brings an install script'],
  ],
  ['no integrity', judge({ version: '1.0.0' }), ['node_modules/a: has no SHA-512 integrity']],
  [
    'a short integrity',
    judge({ ...good, integrity: 'sha1-AAAA' }),
    ['node_modules/a: has no SHA-512 integrity'],
  ],
  [
    'a host',
    judge({ ...good, resolved: 'https://example.test/a.tgz' }),
    ['node_modules/a: names the host it came from'],
  ],
  ['a range', judge(good, '^1.0.0'), ['a: ^1.0.0 is not an exact version']],
  [
    'another version',
    judge(good, '1.0.1'),
    ['a: package.json wants 1.0.1, the lockfile has 1.0.0'],
  ],
  [
    'an old form',
    complaints('{"lockfileVersion":2,"packages":{}}', '{}'),
    ['lockfileVersion is 2, not 3'],
  ],
  [
    'nothing',
    complaints('{"lockfileVersion":3,"packages":{"":{}}}', '{}'),
    ['the lockfile holds no package'],
  ],
])('%s', ([, found, expected]) => expect(found).toEqual(expected))

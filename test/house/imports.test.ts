/** The scanner against sources that would fool a regular expression. */
import { expect, test } from 'vitest'
import { badExports, imports, tokens } from './imports.ts'

const rows: { name: string; source: string; finds: string[] }[] = [
  { name: 'a side effect', source: `import 'a'`, finds: ['import a'] },
  { name: 'a default', source: `import a from "a"`, finds: ['import a'] },
  {
    name: 'names over lines',
    source: `import {\n  a,\n  type B as C,\n} from './a.ts'`,
    finds: ['import ./a.ts'],
  },
  { name: 'everything', source: `import * as a from 'a'`, finds: ['import a'] },
  { name: 'default and names', source: `import a, { b } from 'a'`, finds: ['import a'] },
  {
    name: 'types only',
    source: `import type { A } from 'a'; import type B from 'b'`,
    finds: ['import type a', 'import type b'],
  },
  { name: 'a binding called type', source: `import type from 'a'`, finds: ['import a'] },
  {
    name: 'a binding called from',
    source: `import from from 'a'; import { from } from 'b'`,
    finds: ['import a', 'import b'],
  },
  {
    name: 'attributes',
    source: `import a from './a.json' with { type: 'json' }`,
    finds: ['import ./a.json'],
  },
  {
    name: 're-exports',
    source: `export { a } from 'a'; export type { B } from 'b'; export * from 'c'; export * as d from 'd'`,
    finds: ['export from a', 'export from b', 'export from c', 'export from d'],
  },
  {
    name: 'an export list without a source',
    source: `export { a }\nimport b from 'b'`,
    finds: ['import b'],
  },
  { name: 'a dynamic import', source: `const a = await import('a')`, finds: ['dynamic a'] },
  {
    name: 'a dynamic import in a template',
    source: 'x = `${await import("a")} ${`${import("b")}`}`',
    finds: ['dynamic a', 'dynamic b'],
  },
  {
    name: 'a computed import',
    source: "import(name); import(`./${name}.ts`); import('a' + b)",
    finds: ['dynamic null', 'dynamic null', 'dynamic null'],
  },
  { name: 'a template without holes', source: 'import(`a`)', finds: ['dynamic a'] },
  {
    name: 'an import type expression',
    source: `type A = typeof import('a')`,
    finds: ['dynamic a'],
  },
  { name: 'require', source: `const a = require('a')`, finds: ['require a'] },
  {
    name: 'a worker',
    source: `new Worker(new URL('./w.ts', import.meta.url)); new URL('/api', base)`,
    finds: ['url ./w.ts'],
  },
  { name: 'import.meta', source: `import.meta.dirname`, finds: [] },
  { name: 'a comment', source: `// import 'a'\n/* import 'b'\n */ /** from 'c' */`, finds: [] },
  {
    name: 'a string',
    source: `const a = "import 'a'"; const b = 'export * from "b"'; const c = \`import 'c'\``,
    finds: [],
  },
  {
    name: 'a quote in a regular expression',
    source: `const a = /['"]/.test(x)\nimport 'b'\nconst c = "'"`,
    finds: ['import b'],
  },
  { name: 'a slash in a class', source: `x(/[/'"]/); import 'b'`, finds: ['import b'] },
  {
    name: 'division',
    source: `const a = b / c / d; import 'e'; const f = (g) / 2 + '/'`,
    finds: ['import e'],
  },
  { name: 'an escaped quote', source: `const a = 'it\\'s'; import 'b'`, finds: ['import b'] },
  { name: 'an escaped specifier', source: `import('\\x61\\u0062\\u{63}')`, finds: ['dynamic abc'] },
  {
    name: 'a property',
    source: `a.import('b'); a.require('c'); a.export; ({ import: 1, export: 2 })`,
    finds: [],
  },
  { name: 'a hash-bang', source: `#!/usr/bin/env node\nimport 'a'`, finds: ['import a'] },
  {
    name: 'a private field',
    source: `class A { #from = 'a'; b() { return this.#from } }`,
    finds: [],
  },
]

test.for(rows)('$name', ({ source, finds }) => {
  expect(imports(tokens(source)).map(({ how, from }) => `${how} ${from}`)).toEqual(finds)
})

test('an import knows its line', () => {
  const source = `/* one\n two */\nconst a = \`\n\${b}\n\`\nimport 'c'\n`
  expect(imports(tokens(source))).toEqual([{ how: 'import', from: 'c', line: 6 }])
})

const exported: { source: string; finds: string[] }[] = [
  { source: `export default 1`, finds: ['export default'] },
  { source: `const a = 1\nexport { a as default }`, finds: ['export default'] },
  { source: `export { default } from 'a'`, finds: ['export default'] },
  { source: `export { default as a } from 'a'`, finds: [] },
  { source: `export * from 'a'`, finds: ['export *'] },
  { source: `export type * from 'a'`, finds: ['export *'] },
  { source: `// export default\nexport const a = 'export default'`, finds: [] },
]

test.for(exported)('exports of $source', ({ source, finds }) => {
  expect(badExports(tokens(source)).map(({ what }) => what)).toEqual(finds)
})

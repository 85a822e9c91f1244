import { Command } from 'commander'
import { expect, test } from 'vitest'
import { anchors, code, fences, invocations, links, misused, prose, scripts } from './pages.ts'

const page = [
  '# A page: of `code`',
  'See [one](one.md), ![two](two.png "Two") and [three][3]; not `[four](four.md)`.',
  '```ts',
  'const a = "[five](five.md)"',
  '```',
  '## A page',
  '## A page',
  '~~~~sh',
  'npm run demo -- --check',
  '```',
  'sallyport agent run \\',
  '  --config a.yaml | head',
  '~~~~',
  '[3]: three.md#part',
].join('\n')

test('fences keep their language and line', () => {
  expect(fences(page).map(({ language, line }) => ({ language, line }))).toEqual([
    { language: 'ts', line: 4 },
    { language: 'sh', line: 9 },
  ])
  expect(prose(page).split('\n')).toHaveLength(page.split('\n').length)
})

test('links are those a reader can follow', () => {
  expect(links(page)).toEqual(['one.md', 'two.png', 'three.md#part'])
})

test('anchors are those of the headings', () => {
  expect(anchors(page)).toEqual(['a-page-of-code', 'a-page', 'a-page-1'])
})

test('code is spans and blocks, with continued lines joined', () => {
  expect(code(page)).toContain('sallyport agent run --config a.yaml | head')
})

test.for<[string, string[]]>([
  ['npm ci && npm run demo', ['demo']],
  ['npm run --silent bench -- mux', ['bench']],
  ['npm test', ['test']],
  ['npm ci', []],
])('scripts of %s', ([line, expected]) => expect(scripts(line)).toEqual(expected))

test.for<[string, string[][]]>([
  ['sallyport gateway init --data d', [['gateway', 'init', '--data', 'd']]],
  ['$ sallyport login && sallyport sessions | wc', [['login'], ['sessions']]],
  ['node cli/bin.mjs agent run', [['agent', 'run']]],
  ['main.sallyport.internal', []],
  ['sallyport://tenant/device/a', []],
  ['sallyport', []],
])('invocations of %s', ([line, expected]) => expect(invocations(line)).toEqual(expected))

const program = new Command('sallyport').option('--json')
const device = program.command('device')
device.command('create <id>').option('-z, --zone <zone>')
program.command('connect <target>').option('--listen <address>')

test.for<[string, string | undefined]>([
  ['device create press-07 --zone a --json', undefined],
  ['device create press-07 -z a', undefined],
  ['device …', undefined],
  ['connect press-07/plc --listen=127.0.0.1:1502', undefined],
  ['connect --help', undefined],
  ['device destroy press-07', 'no command destroy'],
  ['policy push', 'no command policy'],
  ['connect press-07/plc --zone a', 'no option --zone'],
])('sallyport %s', ([line, expected]) => expect(misused(program, line.split(' '))).toBe(expected))

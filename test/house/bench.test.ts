/** The form of every bench, with benches that measure nothing. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { main, type Benches } from '../../bench/main.ts'
import { figure, rowComplaints } from '../../bench/print.ts'
import type { Bench, Row } from '../../bench/row.ts'

const rows: Row[] = [
  {
    metric: 'goodput',
    value: 1234.5,
    unit: 'MB/s',
    reference: 'bare TCP, same run',
    spread: '±3 %',
  },
  {
    metric: 'beside yamux',
    value: null,
    unit: 'x',
    reference: 'yamux',
    why: 'go is not installed',
  },
]
const bench = (run: Bench['run']) => () =>
  Promise.resolve({ bench: { name: 'fake', title: 'Nothing at all', run } })
const benches: Benches = {
  fake: bench(({ quick }) => Promise.resolve(quick ? rows.slice(0, 1) : rows)),
  broken: bench(() => Promise.reject(new Error('the peer went away'))),
  silent: bench(() =>
    Promise.resolve([{ metric: 'a', value: Number.NaN, unit: '', reference: 'b' }]),
  ),
  absent: () => Promise.reject(new Error('a package is missing')),
  slow: bench(async () => {
    await sleep(60_000, undefined, { ref: false })
    return rows
  }),
  blocked: bench(() => {
    const end = performance.now() + 300
    while (performance.now() < end);
    return sleep(60_000, rows, { ref: false })
  }),
}

async function run(args: string[], quickSeconds?: number) {
  let out = ''
  let err = ''
  const output = {
    out: (text: string) => void (out += text),
    err: (text: string) => void (err += text),
  }
  const code = await main(args, benches, output, quickSeconds)
  return { code, out, err }
}

async function inFile(args: string[], quickSeconds?: number) {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-bench-'))
  const file = join(folder, 'rows.json')
  try {
    const { code } = await run([...args, '--json', file], quickSeconds)
    return { code, rows: JSON.parse(await readFile(file, 'utf8')) as Row[] }
  } finally {
    await rm(folder, { recursive: true })
  }
}

test('the table has the value, its spread and what it is read against', async () => {
  const { code, out, err } = await run(['fake'])
  expect(code).toBe(0)
  expect(out).toBe(
    [
      'fake: Nothing at all',
      '',
      'metric        value  unit  spread  against',
      '------------  -----  ----  ------  ------------------',
      'goodput       1\u2009235  MB/s  ±3 %    bare TCP, same run',
      'beside yamux      -  x             yamux',
      '',
      'not run: beside yamux: go is not installed',
      '',
    ].join('\n'),
  )
  expect(err).toMatch(/^fake: Nothing at all\nfake: \d+\.\d s\n$/)
})

test('--quick reaches the bench', async () => {
  const { out } = await run(['fake', '--quick'])
  expect(out).toContain('goodput')
  expect(out).not.toContain('yamux')
})

test('--json writes the rows, and why one has no value', async () => {
  expect(await inFile(['fake'])).toEqual({ code: 0, rows })
})

test('without a name the benches are listed', async () => {
  const { code, out } = await run([])
  expect(code).toBe(0)
  expect(out).toContain('  fake       Nothing at all\n')
  expect(out).toContain('  absent     does not load: a package is missing\n')
})

test.for([
  { args: ['nothing'], says: 'no bench is called nothing' },
  { args: ['toString'], says: 'no bench is called toString' },
  { args: ['fake', 'slow'], says: 'one bench at a time' },
  { args: ['--fast'], says: "Unknown option '--fast'" },
  { args: ['fake', '--json'], says: "'--json <value>' argument missing" },
])('$args is refused with exit code 2', async ({ args, says }) => {
  const { code, out, err } = await run(args)
  expect({ code, out }).toEqual({ code: 2, out: '' })
  expect(err).toContain(says)
})

test('a bench that fails says so, in the file too', async () => {
  const { code, err } = await run(['broken'])
  expect(code).toBe(1)
  expect(err).toContain('broken failed: Error: the peer went away'.replace('broken', 'fake'))
  const written = await inFile(['broken'])
  expect(written.rows).toEqual([
    { metric: 'fake', value: null, unit: '', reference: '', why: 'the peer went away' },
  ])
})

test('a row that cannot be read is a failure', async () => {
  const { code, err } = await run(['silent'])
  expect(code).toBe(1)
  expect(err).toContain('a: the value is NaN')
})

test.for(['slow', 'blocked'])('--quick ends a %s bench', async (name) => {
  const { code, err } = await run([name, '--quick'], 0.1)
  expect(code).toBe(1)
  expect(err).toContain('fake took longer than the 0.1 s that --quick allows')
})

test.for([
  { value: 0, text: '0' },
  { value: 0.012345, text: '0.01235' },
  { value: 1.5, text: '1.500' },
  { value: 41.237, text: '41.24' },
  { value: 999.96, text: '1\u2009000' },
  { value: 1234567, text: '1\u2009234\u2009567' },
  { value: -12.5, text: '-12.50' },
])('$value is printed as $text', ({ value, text }) => expect(figure(value)).toBe(text))

test.for<[string, Row[], string]>([
  ['none', [], 'no rows'],
  [
    'no reference',
    [{ metric: 'a', value: 1, unit: 's', reference: '' }],
    'a: no reference to read it against',
  ],
  ['no why', [{ metric: 'a', value: null, unit: 's', reference: 'b' }], 'a: no value, and no why'],
  ['no metric', [{ metric: '', value: 1, unit: 's', reference: 'b' }], 'a row without a metric'],
  [
    'twice',
    [1, 2].map((value) => ({ metric: 'a', value, unit: 's', reference: 'b' })),
    'a: two rows of this name',
  ],
])('rows with %s are refused', ([, given, says]) => expect(rowComplaints(given)).toEqual([says]))

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { linesOf, reconcile, type Reconciliation } from '#audit'
import { formatMessage } from '../../audit/format/rfc5424.ts'
import { LogReader, type Entry } from '../../audit/read.ts'
import { heads, origin, shared, temporary, vkeys, writer } from './fixture.ts'

const directory = shared()
const one = writer(directory)
one.open()
one.write(heads(30, 'a "quoted\\" line'))
one.sign(1_800_000_000_000)
one.write(heads(30, 'b'))
one.sign(1_800_000_000_000)
one.write(heads(3, 'not signed yet'))
one.close()
const entries = new LogReader(directory, origin).entries(0, 60, 60)

/** An event as each kind of SIEM gives it back. */
const wrappings: Record<string, (entry: Entry) => Buffer> = {
  'the bare body': ({ body }) => Buffer.from(body),
  'a syslog message in a file of rsyslog': (entry) => Buffer.from(syslog(entry, entry.body)),
  'a Splunk export with _raw': ({ body, leaf }) =>
    Buffer.from(JSON.stringify({ preview: false, result: { _raw: text(body), leaf, idx: '1' } })),
  'an Elastic dump with event.original': ({ body, uid, leaf, idx }) =>
    Buffer.from(
      JSON.stringify({
        _index: 'audit',
        _id: uid,
        _source: { event: { original: text(body) }, sallyport: { leaf, idx } },
      }),
    ),
}
const text = (body: Uint8Array): string => Buffer.from(body).toString()
function syslog({ idx, uid, leaf, cp }: Entry, body: Uint8Array): Uint8Array {
  return formatMessage({
    severity: 1,
    time: 1_800_000_000_000,
    host: 'n1',
    app: 'sallyport',
    id: 'session.stats',
    elementId: 'sallyport@32473',
    elements: { origin, idx: String(idx), uid, leaf, cp: cp ?? undefined },
    body,
  })
}

const ask = (lines: readonly Uint8Array[], more = {}): Promise<Reconciliation> =>
  reconcile({ directory, vkeys, lines, ...more })

test('an export that has more of the log than the copy of it leaves open whether all is there', async () => {
  const more = new LogReader(directory, origin).entries(60, 63, 3)
  const lines = [...entries, ...more].map(({ body }) => Buffer.from(body))
  const found = await ask(lines)
  expect(found).toMatchObject({ outcome: 'not-provable', verbatim: 60 })
  expect(found.why).toBe(
    `the export has event 62 of ${origin} (line 63), and only 60 are signed in the log that is here`,
  )
  // A range that ends before is not about it.
  expect(await ask(lines, { to: 60 })).toMatchObject({ outcome: 'complete' })
})

test('altered events are all counted, however few are kept', async () => {
  const [entry] = entries
  const altered = Buffer.from(
    Buffer.from(entry?.body ?? [])
      .toString()
      .replace('line', 'lime'),
  )
  const found = await ask(Array.from({ length: 1_500 }, () => altered))
  expect(found.mismatched).toBe(1_500)
  expect(found.mismatches).toHaveLength(1_000)
})

describe.each(Object.entries(wrappings))('%s', (_name, wrap) => {
  const lines = entries.map((entry) => wrap(entry))
  test('whole is complete, in any order, with duplicates counted', async () => {
    expect(await ask(lines)).toMatchObject({ outcome: 'complete', verbatim: 60, duplicates: 0 })
    const again = [...lines.toReversed(), ...lines.slice(10, 15)]
    expect(await ask(again)).toMatchObject({ outcome: 'complete', verbatim: 60, duplicates: 5 })
  })
  test('with lines deleted says which', async () => {
    const kept = lines.filter((_, i) => i !== 0 && i !== 59 && (i < 20 || i > 24))
    expect(await ask(kept)).toMatchObject({
      outcome: 'violated',
      missing: [
        { from: 0, to: 0 },
        { from: 20, to: 24 },
        { from: 59, to: 59 },
      ],
    })
  })
  test('with one event changed names it and its line', async () => {
    const changed = lines.with(
      33,
      Buffer.from((lines[33] ?? Buffer.alloc(0)).toString().replace('b 3', 'b 4')),
    )
    expect(await ask(changed)).toMatchObject({
      outcome: 'violated',
      missing: [{ from: 33, to: 33 }],
      mismatches: [{ idx: 33, line: 34, what: 'altered' }],
    })
  })
})

test('any one character of a body changed is never called complete', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat({ max: 59 }), fc.nat(), async (which, where) => {
      const lines = entries.map(({ body }) => Buffer.from(body))
      const line = lines[which] ?? Buffer.alloc(0)
      line[where % line.length] = (line[where % line.length] ?? 0) ^ 1
      expect((await ask(lines)).outcome).toBe('violated')
    }),
    { numRuns: 60 },
  )
})

test('an event of which only the fields went proves that it is there, not what it says', async () => {
  const stub = Buffer.from(
    JSON.stringify({ severity_id: 1, time: 1, metadata: { is_truncated: true, sequence: 7 } }),
  )
  const lines = entries.map((entry) => syslog(entry, entry.idx === 7 ? stub : entry.body))
  const found = await ask(lines)
  expect(found).toMatchObject({ outcome: 'complete', verbatim: 59, stubs: 1 })
  expect(found.why).toMatch(/content is not proven/)
})

test('half a line of a receiver that was killed does not spoil the line behind it', async () => {
  const lines = entries.map((entry) => syslog(entry, entry.body))
  const [cut = Buffer.alloc(0), whole = Buffer.alloc(0)] = lines.slice(8, 10)
  const joined = lines.toSpliced(8, 1, Buffer.concat([cut.subarray(0, 600), whole]), cut)
  expect(await ask(joined)).toMatchObject({ outcome: 'complete', verbatim: 60, duplicates: 1 })
})

test('lines of other logs and of other programs count for nothing', async () => {
  const other = entries.map(({ body }) =>
    Buffer.from(text(body).replaceAll(origin, 'other.test/audit/n1/1')),
  )
  expect(await ask([...other, Buffer.from('cron[1]: hello')])).toMatchObject({
    outcome: 'violated',
    strange: 61,
    missing: [{ from: 0, to: 59 }],
  })
})

test('a part of the log may be asked for, but not what is not signed', async () => {
  const some = entries.slice(10, 20).map(({ body }) => body)
  expect(await ask(some, { from: 10, to: 20 })).toMatchObject({ outcome: 'complete', verbatim: 10 })
  expect(await ask(some, { from: 10, to: 63 })).toMatchObject({ outcome: 'not-provable' })
})

test('a log that is not what was signed is no measure', async () => {
  const forged = temporary()
  const two = writer(forged)
  two.open()
  two.write(heads(4))
  two.close()
  await expect(
    reconcile({ directory: forged, vkeys: [vkeys[0]?.slice(0, -4) ?? ''], lines: [] }),
  ).rejects.toThrow(/verifier key/)
  expect(await reconcile({ directory: forged, vkeys, lines: [] })).toMatchObject({
    outcome: 'not-provable',
  })
})

test('lines come out of any chunks as they went in', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.stringMatching(/^[a-z]{0,9}$/)),
      fc.nat({ max: 7 }),
      async (rows, n) => {
        const bytes = Buffer.from(rows.map((row) => `${row}\r\n`).join(''))
        async function* chunks(): AsyncGenerator<Uint8Array> {
          for (let at = 0; at < bytes.length; at += n + 1) yield bytes.subarray(at, at + n + 1)
        }
        const out: string[] = []
        for await (const line of linesOf(chunks())) out.push(text(line))
        expect(out).toEqual(rows)
      },
    ),
  )
})

/** A bench's rows as a table for people, and the check that every row says what it stands on. */
import type { Row } from './row.ts'

const HEAD = ['metric', 'value', 'unit', 'spread', 'against'] as const

/** The table, and below it what was not run and why. Lines end with LF. */
export function table(title: string, rows: readonly Row[]): string {
  const cells = rows.map((row) => [
    row.metric,
    row.value === null ? '-' : figure(row.value),
    row.unit,
    row.spread ?? '',
    row.reference,
  ])
  const widths = HEAD.map((head, at) =>
    Math.max(head.length, ...cells.map((cell) => cell[at]?.length ?? 0)),
  )
  const line = (cell: readonly string[]) =>
    cell
      .map((text, at) => (at === 1 ? text.padStart(widths[at] ?? 0) : text.padEnd(widths[at] ?? 0)))
      .join('  ')
  const absent = rows.filter((row) => row.value === null)
  const lines = [
    title,
    '',
    line(HEAD),
    line(widths.map((width) => '-'.repeat(width))),
    ...cells.map(line),
  ]
  if (absent.length > 0)
    lines.push('', ...absent.map((row) => `not run: ${row.metric}: ${row.why}`))
  return `${lines.map((text) => text.trimEnd()).join('\n')}\n`
}

/** Four significant digits, whole from a thousand up, thousands apart by a thin space. */
export function figure(value: number): string {
  if (value === 0) return '0'
  const rounded = Number(value.toPrecision(4))
  const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.abs(rounded))))
  const [whole = '', part] = value.toFixed(Math.min(digits, 9)).split('.')
  const apart = whole.replaceAll(/(?<=\d)(?=(?:\d{3})+$)/g, '\u2009')
  return part === undefined ? apart : `${apart}.${part}`
}

/** What is wrong with the rows a bench gave; nothing if each can be read on its own. */
export function rowComplaints(rows: readonly Row[]): string[] {
  const found: string[] = []
  if (rows.length === 0) found.push('no rows')
  for (const row of rows) {
    const { metric, value } = row
    if (metric === '') found.push('a row without a metric')
    if (value !== null && !Number.isFinite(value)) found.push(`${metric}: the value is ${value}`)
    if (value !== null && row.reference === '')
      found.push(`${metric}: no reference to read it against`)
    if (value === null && (row.why ?? '') === '') found.push(`${metric}: no value, and no why`)
  }
  const twice = rows.filter(
    (row, at) => rows.findIndex(({ metric }) => metric === row.metric) !== at,
  )
  return [...found, ...twice.map(({ metric }) => `${metric}: two rows of this name`)]
}

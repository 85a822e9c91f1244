/**
 * What a person reads on stdout and stderr: tables, lines, errors. With `--json` the same facts as
 * one JSON value. Control characters that came from elsewhere never reach the terminal.
 */
import { styleText } from 'node:util'
import type { CliError } from './exit.ts'

export interface PrintOptions {
  readonly json: boolean
}

export type Cell = string | number | boolean | null | undefined

/** Column headings and, for each row, as many cells. */
export interface Table {
  readonly head: readonly string[]
  readonly rows: readonly (readonly Cell[])[]
  /** Said instead of an empty table. */
  readonly empty: string
}

/**
 * Text from a device, a vendor or a log, made harmless: C0, DEL and C1 controls and bidirectional
 * overrides become their code points in angle brackets, so no name can move the cursor.
 */
export function plain(text: string): string {
  return text.replace(
    // The class is spelt in escapes on purpose: it is the controls that are looked for.
    // oxlint-disable-next-line no-control-regex
    /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g,
    (control) => `<${control.codePointAt(0)?.toString(16).padStart(4, '0') ?? ''}>`,
  )
}

/** One line on stdout. */
export function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** One line on stderr, for what is not the command's result: prompts, notices, countdowns. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** The command's result: `value` as JSON on one line, or `table` for people. */
export function show(options: PrintOptions, value: unknown, table: Table): void {
  if (options.json) say(JSON.stringify(value))
  else say(layOut(table))
}

/** The command's result: `value` as JSON on one line, or `lines` for people. */
export function tell(options: PrintOptions, value: unknown, lines: readonly string[]): void {
  if (options.json) say(JSON.stringify(value))
  else for (const line of lines) say(line)
}

/** Columns as wide as their widest cell, two blanks apart; an empty table is its sentence. */
export function layOut(table: Table): string {
  if (table.rows.length === 0) return table.empty
  const rows = table.rows.map((row) => row.map(cell))
  const widths = table.head.map((title, at) =>
    Math.max(title.length, ...rows.map((row) => row[at]?.length ?? 0)),
  )
  const line = (cells: readonly string[]): string =>
    cells
      .map((text, at) => (at === cells.length - 1 ? text : text.padEnd(widths[at] ?? 0)))
      .join('  ')
      .trimEnd()
  return [line(table.head.map((title) => title.toUpperCase())), ...rows.map(line)].join('\n')
}

function cell(value: Cell): string {
  if (value === null || value === undefined || value === '') return '-'
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  return plain(String(value))
}

/** Name and value, one pair a line, values in one column. */
export function facts(pairs: readonly (readonly [string, Cell])[]): string[] {
  const width = Math.max(...pairs.map(([name]) => name.length))
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${cell(value)}`)
}

/** Epoch seconds as a person and a log both read it: UTC, to the second. */
export function instant(seconds: number | null): string {
  return seconds === null ? '-' : new Date(seconds * 1000).toISOString().replace('.000Z', 'Z')
}

/** Milliseconds as `1m 40s`, `12s`, `0.4s`. */
export function remaining(ms: number): string {
  if (ms < 1000) return `${(Math.max(0, ms) / 1000).toFixed(1)}s`
  const whole = Math.floor(ms / 1000)
  const parts = [
    [Math.floor(whole / 3600), 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ] as const
  return parts
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count}${unit}`)
    .join(' ')
}

/** An error as people read it: what, why, next step, id; or as one JSON line. */
export function explain(error: CliError, options: PrintOptions): string {
  const { message, code, why, next, id } = error
  if (options.json) return JSON.stringify({ error: { code, message, why, next_step: next, id } })
  const red = styleText('red', `sallyport: ${plain(message)}`, { stream: process.stderr })
  const parts: [string, string | undefined][] = [
    ['code', code],
    ['why', why],
    ['next', next],
    ['id', id],
  ]
  const rest = parts.flatMap(([name, text]) =>
    text === undefined ? [] : [`  ${name.padEnd(4)}  ${plain(text)}`],
  )
  return [red, ...rest].join('\n')
}

/** What the demo says while it plays: one line a step with its duration, then a table. */

export interface Row {
  readonly step: number
  readonly title: string
  readonly passed: boolean
  readonly ms: number
  /** What was found out, in a few words. */
  readonly found: readonly string[]
}

export interface Report {
  begin(step: number, title: string): void
  end(row: Row): void
  say(line: string): void
}

/** Lines on stdout; on a terminal the step that runs is shown before it has ended. */
export function lineReport(out: NodeJS.WriteStream): Report {
  const live = out.isTTY === true
  return {
    begin(step, title) {
      if (live) out.write(`  ${step}  ${title} …`)
    },
    end(row) {
      if (live) out.write('\r\u001b[2K')
      out.write(`${row.passed ? 'ok' : 'NO'}  ${row.step}  ${row.title} (${seconds(row.ms)})\n`)
      for (const line of row.found) out.write(`       ${line}\n`)
    },
    say(line) {
      out.write(`${line}\n`)
    },
  }
}

/** The table of `--check`: every step, in order, with its result and duration. */
export function table(rows: readonly Row[]): string {
  const width = Math.max(...rows.map((row) => row.title.length))
  const line = (row: Row): string =>
    `${String(row.step).padStart(4)}  ${row.title.padEnd(width)}  ${row.passed ? 'passed' : 'FAILED'}  ${seconds(row.ms).padStart(7)}`
  const total = rows.reduce((sum, row) => sum + row.ms, 0)
  return [
    `step  ${'what'.padEnd(width)}  result    time`,
    ...rows.map(line),
    `      ${'total'.padEnd(width)}  ${rows.filter((row) => row.passed).length}/${rows.length}     ${seconds(total).padStart(7)}`,
  ].join('\n')
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

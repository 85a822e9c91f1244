/**
 * Which addresses have lately proven to belong here, across a restart: otherwise the devices that all
 * come back at once would be strangers, and share with whoever floods the port what strangers may.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import type { Admission } from './admission.ts'

const SAVE_MS = 300_000
/** Larger than 50,000 of the longest addresses; what is larger is not ours. */
const MOST_BYTES = 4 * 1024 * 1024

/** Both clocks in milliseconds: the file keeps dates, admission knows none. */
export interface Clocks {
  readonly date: () => number
  readonly monotonic: () => number
}

export interface SourcesOptions {
  readonly file: string
  readonly clocks: Clocks
  /** Told what is wrong with the file; the node goes on without it. */
  readonly report: (error: unknown, what: string) => void
}

/** Gives `admission` what the file knows, and keeps the file until disposed. */
export function keepSources(admission: Admission, options: SourcesOptions): Disposable {
  const { file, clocks, report } = options
  const ago = clocks.date() - clocks.monotonic()
  for (const [source, date] of read(options)) {
    const age = clocks.date() - date
    if (age >= 0) admission.remember(source, clocks.monotonic() - age)
  }
  const save = (): void => {
    try {
      const known = admission
        .known(clocks.monotonic())
        .map(([source, at]) => [source, Math.round(at + ago)])
      writeFileSync(`${file}.new`, JSON.stringify({ v: 1, sources: known }), { mode: 0o600 })
      renameSync(`${file}.new`, file)
    } catch (error) {
      report(error, 'the addresses that belong here could not be kept')
    }
  }
  const timer = setInterval(save, SAVE_MS)
  timer.unref()
  return {
    [Symbol.dispose]() {
      clearInterval(timer)
      save()
    },
  }
}

function read({ file, report }: SourcesOptions): readonly (readonly [string, number])[] {
  try {
    const text = readFileSync(file, 'utf8')
    if (text.length > MOST_BYTES) throw new Error('it is too long')
    const { sources } = JSON.parse(text) as { sources?: unknown }
    if (!Array.isArray(sources) || !sources.every(isSource))
      throw new Error('it is not of this form')
    return sources
  } catch (error) {
    const absent = error instanceof Error && 'code' in error && error.code === 'ENOENT'
    if (!absent) report(error, `${file} is not used`)
    return []
  }
}

function isSource(value: unknown): value is readonly [string, number] {
  const [source, date] = Array.isArray(value) && value.length === 2 ? (value as unknown[]) : []
  return typeof source === 'string' && source.length <= 64 && Number.isSafeInteger(date)
}

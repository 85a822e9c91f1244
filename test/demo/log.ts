/** The gateway's log as its API gives it, and what the demo looks for in it. */
import type { LogEntry, LogPage } from '#api'
import type { Stage } from './stage.ts'

/** More events than any run of the demo makes. */
const ALL = '100000'

/** Every event from `from` on, in order, as of now. */
export async function readEvents(stage: Stage, from = 0): Promise<LogPage> {
  return (await stage.sallyport.ask(
    'admin',
    'audit',
    'tail',
    '--from',
    String(from),
    '--limit',
    ALL,
  )) as LogPage
}

/** The code of an event: OCSF metadata.event_code. */
export function codeOf(entry: LogEntry): string {
  const found = find(entry.event, 'event_code')
  return typeof found === 'string' ? found : ''
}

/** The first value of that key anywhere in an event. */
export function find(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  if (key in value) return (value as Record<string, unknown>)[key]
  for (const inner of Object.values(value)) {
    const found = find(inner, key)
    if (found !== undefined) return found
  }
  return undefined
}

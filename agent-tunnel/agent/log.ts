/** Log lines: one JSON object a line on standard error. Never keys, tokens or payload. */

export type Level = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Readonly<Record<string, string | number | boolean | null | undefined | object>>
export type Log = (level: Level, event: string, fields?: Fields) => void

/** Writes lines to `out`; the time is this device's own idea of it. */
export function lineLog(out: (line: string) => void, now: () => number = Date.now): Log {
  return (level, event, fields = {}) => {
    out(`${JSON.stringify({ time: new Date(now()).toISOString(), level, event, ...fields })}\n`)
  }
}

/** What an agent in one file is told of its start, by whoever chose it: a variable, which the next start does not see. */
import { isSea } from 'node:sea'

/** Says to the agent how it was started: the version that is installed, and the update that it is, or `-`. */
export const STARTED = 'SALLYPORT_STARTED'

/** How this agent was started; undefined where nothing chose it, and so nothing could choose another. */
export function startedAs():
  | {
      readonly installed: string
      readonly running: string | null
      readonly kind: 'file' | 'executable'
    }
  | undefined {
  const [, installed, running] =
    /^(\d+\.\d+\.\d+) ([0-9a-f]{64}|-)$/.exec(process.env[STARTED] ?? '') ?? []
  if (installed === undefined || running === undefined) return undefined
  const kind = isSea() ? 'executable' : 'file'
  return { installed, running: running === '-' ? null : running, kind }
}

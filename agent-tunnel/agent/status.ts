/** What the running agent says of itself in a file, for `agent status`, and for a second agent not to start. */
import { join } from 'node:path'
import { AgentError } from './errors.ts'
import { readIfPresent, writeDurably } from './files.ts'
import { startTicksOf } from './scope/holders.ts'

export interface Status {
  readonly pid: number
  /** With the pid it names one process; null where there is no procfs. */
  readonly start_ticks: number | null
  readonly state: 'dialling' | 'connected' | 'island' | 'stopped'
  /** When the state began, ISO 8601 by this device's clock. */
  readonly since: string
  readonly gateway: string | null
  readonly tls: {
    readonly version: string
    readonly cipher: string
    readonly group: string | null
  } | null
  readonly certificate: { readonly serial: string; readonly not_after: string } | null
  /**
   * Processes that could not be read for lack of privilege, when the targets were last found changed;
   * null before the first look. docs/process-scope.md.
   */
  readonly unreadable: number | null
  /** Why the gateway's log is not believed; null while it is. docs/agent.md. */
  readonly log_conflict: { readonly code: string; readonly message: string } | null
  readonly last_error: { readonly code: string; readonly message: string } | null
}

const FILE = 'status.json'

/** The status file and whether the process that wrote it still runs. */
export function readStatus(
  dataDir: string,
): { readonly status: Status; readonly alive: boolean } | undefined {
  const text = readIfPresent(join(dataDir, FILE))
  if (text === undefined) return undefined
  try {
    const status = JSON.parse(text) as Status
    const alive =
      status.state !== 'stopped' && startTicksOf('/proc', status.pid) === status.start_ticks
    return { status, alive }
  } catch {
    return undefined
  }
}

/** Keeps the status file of one run. */
export class StatusFile {
  readonly #path: string
  readonly #ticks = startTicksOf('/proc', process.pid) ?? null
  #status: Status

  /** Throws AgentError `agent.running` when another agent runs on this data directory, `data.unwritable`. */
  constructor(dataDir: string) {
    const before = readStatus(dataDir)
    if (before?.alive === true && before.status.pid !== process.pid) {
      throw new AgentError(
        'agent.running',
        `An agent already runs on ${dataDir} (process ${before.status.pid}).`,
        'Stop that one first; two would take the tunnel from each other.',
      )
    }
    this.#path = join(dataDir, FILE)
    this.#status = {
      pid: process.pid,
      start_ticks: this.#ticks,
      state: 'dialling',
      since: new Date().toISOString(),
      gateway: null,
      tls: null,
      certificate: null,
      unreadable: null,
      log_conflict: null,
      last_error: null,
    }
    this.#write()
  }

  /** Writes what changed; a disk that takes nothing does not stop the agent. */
  update(change: Partial<Omit<Status, 'pid' | 'start_ticks' | 'since'>>): void {
    const moved = change.state !== undefined && change.state !== this.#status.state
    const since = moved ? new Date().toISOString() : this.#status.since
    this.#status = { ...this.#status, ...change, since }
    try {
      this.#write()
    } catch {
      // The log has said what this file would.
    }
  }

  #write(): void {
    writeDurably(this.#path, `${JSON.stringify(this.#status, undefined, 2)}\n`, 0o600)
  }
}

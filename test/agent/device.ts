/** A device for agent tests: a data directory, enrolled at a fake gateway, and the agent run on it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { configFrom, enrolAgent, runAgent } from '#agent'
import type { AgentConfig, RunOptions } from '#agent'
import { DEVICE, soon } from './gateway.ts'
import type { FakeGateway } from './gateway.ts'

export interface Line {
  readonly level: string
  readonly event: string
  readonly fields: Readonly<Record<string, unknown>>
}

export class Directory implements Disposable {
  readonly path: string
  constructor() {
    this.path = mkdtempSync(join(tmpdir(), 'sallyport-agent-'))
  }
  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

export function configOf(
  gateway: FakeGateway,
  directory: Directory,
  targets: readonly string[] = [],
): AgentConfig {
  return configFrom(
    { gateway: gateway.url, device: DEVICE, rootSha256: gateway.pin, targets },
    directory.path,
  )
}

export async function enrolled(
  gateway: FakeGateway,
  directory: Directory,
  targets: readonly string[] = [],
): Promise<AgentConfig> {
  const config = configOf(gateway, directory, targets)
  await enrolAgent(config, { token: await gateway.bench.token(), log: () => undefined })
  return config
}

export interface Running extends AsyncDisposable {
  readonly lines: Line[]
  /** Events of that name so far. */
  logged(event: string): Line[]
  stop(): Promise<void>
}

/** Runs an agent in this process until disposed. */
export function running(config: AgentConfig, options: Partial<RunOptions> = {}): Running {
  const stopping = new AbortController()
  const lines: Line[] = []
  const done = runAgent(config, {
    signal: stopping.signal,
    log: (level, event, fields = {}) =>
      lines.push({ level, event, fields: fields as Line['fields'] }),
    // No jitter: a wait is nothing, or what the gateway asked for.
    random: () => 0,
    ...options,
  })
  done.catch(() => undefined)
  const stop = async () => {
    stopping.abort()
    await soon('the agent stops', done)
  }
  return {
    lines,
    stop,
    logged: (event) => lines.filter((line) => line.event === event),
    [Symbol.asyncDispose]: stop,
  }
}

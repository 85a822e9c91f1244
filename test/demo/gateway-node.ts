/** The gateway of the demo: one node from embedded defaults, told only its ports and where its SIEM is. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ReceiverFiles } from './certificates.ts'
import { readLine, type Program } from './programs.ts'
import type { Stage } from './stage.ts'

const READY_MS = 60_000

export class GatewayNode {
  readonly data: string
  readonly #stage: Stage
  readonly #config: string
  #program: Program | undefined

  constructor(stage: Stage, siem: ReceiverFiles) {
    this.#stage = stage
    this.data = join(stage.folder('gateway'), 'data')
    this.#config = join(stage.directory, 'gateway', 'config.yaml')
    writeFileSync(this.#config, configText(stage, siem))
  }

  get pid(): number {
    return this.#program?.pid ?? 0
  }

  /** Starts it and resolves when it takes connections. */
  async start(): Promise<void> {
    const start = this.#stage.sallyport.start('none', ['gateway', '--config', this.#config])
    const program = this.#stage.programs.start({
      ...start,
      name: 'gateway',
      cwd: this.#stage.directory,
    })
    this.#program = program
    await program.line('its ready line', READY_MS, (line) =>
      readLine(line)?.['msg'] === 'ready' ? true : undefined,
    )
  }

  /** SIGKILL, as a power cut would: nothing gets to say goodbye. */
  async kill(): Promise<void> {
    await this.#program?.kill()
  }

  read(name: string): string {
    return readFileSync(join(this.data, name), 'utf8').trim()
  }

  file(name: string): string {
    return join(this.data, name)
  }

  /** Fingerprint of its root: what people and devices pin. */
  get caSha256(): string {
    return this.read('ca-root.sha256').split(/\s/)[0] ?? ''
  }
}

function configText(stage: Stage, siem: ReceiverFiles): string {
  return `listen: 127.0.0.1:${stage.ports.gateway}
operations: 127.0.0.1:${stage.ports.operations}
data: ./data
syslog:
  - name: siem
    host: 127.0.0.1
    port: ${stage.ports.siem}
    servername: siem.plant.test
    ca_file: ${siem.ca}
    cert_file: ${siem.clientCert}
    key_file: ${siem.clientKey}
    enterprise_number: 32473
`
}

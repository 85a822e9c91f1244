/** The sinks of the log: opened as configured, and looked after. */
import { readFileSync } from 'node:fs'
import type { Logger } from 'pino'
import { shipEpochs, shipSyslog, type Shipper } from '#audit'
import type { Config } from './config.ts'
import type { Foundation } from './foundation.ts'
import { openHttpsSinks } from './sinks.ts'

/** Begins to ship the log to every sink, also what is left of epochs that ended. */
export function openShippers(config: Config, { log }: Pick<Foundation, 'log'>): Shipper[] {
  const syslog = config.syslog.map((sink) => {
    const options = {
      name: sink.name,
      host: sink.host,
      port: sink.port,
      ca: readFileSync(sink.ca_file),
      ...(sink.cert_file === undefined ? {} : { cert: readFileSync(sink.cert_file) }),
      ...(sink.key_file === undefined ? {} : { key: readFileSync(sink.key_file) }),
      ...(sink.servername === undefined ? {} : { servername: sink.servername }),
      enterpriseNumber: sink.enterprise_number ?? 32_473,
      format: sink.format ?? 'ocsf',
    }
    return shipEpochs(log, log.ended, sink.name, (one) => shipSyslog(one, options))
  })
  return [...syslog, ...openHttpsSinks(config.sinks, log, log.ended)]
}

const SINK_CHECK_MS = 10_000

/** Says in the node's own log when a sink is down, behind or well again: each at most once a minute. */
export function watchSinks(shippers: readonly Shipper[], logger: Logger): Disposable {
  const told = new Map<string, { readonly state: string; readonly at: number }>()
  const timer = setInterval(() => {
    const at = performance.now()
    for (const shipper of shippers) {
      const { name, state, lastError } = shipper.health()
      const last = told.get(name)
      if (state === (last?.state ?? 'OK') || (last !== undefined && at - last.at < 60_000)) continue
      told.set(name, { state, at })
      const level = state === 'OK' ? 'info' : 'warn'
      logger[level]({ sink: name, state, lag: shipper.lag().events, lastError }, 'sink')
    }
  }, SINK_CHECK_MS)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

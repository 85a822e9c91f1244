/** Receivers of the audit log over HTTPS, as the configuration names them; syslog has settings of its own. */
import { readFileSync } from 'node:fs'
import { Type, type Static } from 'typebox'
import {
  elastic,
  otlp,
  shipEpochs,
  shipHttps,
  splunk,
  webhook,
  type AuditLog,
  type EndedEpoch,
  type EpochedLog,
  type Kind,
  type Shipper,
} from '#audit'

export const HttpsSink = Type.Object(
  {
    kind: Type.Union([
      Type.Literal('splunk'),
      Type.Literal('elastic'),
      Type.Literal('webhook'),
      Type.Literal('otlp'),
    ]),
    name: Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,31}$' }),
    /** Scheme, host and port; for a webhook its path too. */
    url: Type.String({ pattern: '^https://[^\\s/?#]+(/[^\\s?#]*)?$' }),
    ca_file: Type.String({ minLength: 1 }),
    /** Splunk: the token. Elastic, OTLP: the value of Authorization. Webhook: the secret it signs with. */
    secret_file: Type.Optional(Type.String({ minLength: 1 })),
    servername: Type.Optional(Type.String({ minLength: 1 })),
    cert_file: Type.Optional(Type.String({ minLength: 1 })),
    key_file: Type.Optional(Type.String({ minLength: 1 })),
    /** Elastic: the data stream. Splunk: the index. */
    index: Type.Optional(Type.String({ pattern: '^[a-z0-9_][a-z0-9_.-]{0,127}$' })),
    /** Splunk: a UUID; with it a batch counts when it is indexed. */
    channel: Type.Optional(Type.String({ pattern: '^[0-9a-fA-F-]{36}$' })),
  },
  { additionalProperties: false },
)
export type HttpsSink = Static<typeof HttpsSink>

function kindOf(sink: HttpsSink, secret: string): Kind {
  const index = sink.index === undefined ? {} : { index: sink.index }
  switch (sink.kind) {
    case 'splunk':
      return splunk({ token: secret, ...index, ...channelOf(sink) })
    case 'elastic':
      return elastic({ authorization: secret, index: sink.index ?? 'logs-sallyport-default' })
    case 'webhook':
      return webhook({ path: new URL(sink.url).pathname, secret })
    case 'otlp':
      return otlp(secret === '' ? {} : { headers: { authorization: secret } })
  }
}

function channelOf({ channel }: HttpsSink): { channel?: string } {
  return channel === undefined ? {} : { channel }
}

/** Begins to ship to each of `sinks`, also what is left of `ended` epochs. Throws for a file that cannot be read. */
export function openHttpsSinks(
  sinks: readonly HttpsSink[],
  log: AuditLog | EpochedLog,
  ended: readonly EndedEpoch[],
): Shipper[] {
  return sinks.map((sink) => {
    const { hostname, port } = new URL(sink.url)
    const read = (path: string | undefined): Buffer | undefined =>
      path === undefined ? undefined : readFileSync(path)
    const secret = read(sink.secret_file)?.toString().trim() ?? ''
    const [cert, key] = [read(sink.cert_file), read(sink.key_file)]
    const acked = sink.kind === 'splunk' && sink.channel !== undefined
    const options = {
      name: sink.name,
      host: hostname.replace(/^\[|\]$/g, ''),
      port: port === '' ? 443 : Number(port),
      ca: readFileSync(sink.ca_file),
      kind: kindOf(sink, secret),
      ...(acked ? { ack: { token: secret, ...channelOf(sink) } } : {}),
      ...(sink.servername === undefined ? {} : { servername: sink.servername }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    }
    return shipEpochs(log, ended, sink.name, (one) => shipHttps(one, options))
  })
}

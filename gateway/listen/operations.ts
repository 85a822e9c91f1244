/** The loopback-only port for whoever runs the node: is it alive, is it ready, which policy decides. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { GlassHealth } from '../grants/review.ts'
import type { NoticesHealth } from '../notices/dispatch.ts'
import type { ComparisonHealth } from '../policy/comparison.ts'
import type { BundleServer } from '../policy/publish.ts'
import type { StatusReport } from '../policy/report.ts'
import type { SourceHealth } from '../policy/source.ts'

export interface Health {
  /** One line per part; the node is ready when every one is true. */
  readonly parts: Readonly<Record<string, boolean>>
  readonly devices: number
  readonly sessions: number
  readonly log_state: string
  /** Bytes free for the log, promised to what was admitted, and kept back for ends and operators. */
  readonly log_space: {
    readonly free: number | null
    readonly promised: number
    readonly closeout: number
    readonly breakglass: number
    /** Of what is to be kept back: not on the disk, or spent. */
    readonly missing: number
  }
  /** Messages to people: how many wait, what nobody took. Null where none are sent. */
  readonly notices: NoticesHealth | null
  /** Seals that were broken and that nobody has reviewed: keeps the node from nothing, and somebody from sleeping. */
  readonly break_glass: GlassHealth
  /** Seconds that the clock of the machine was set back while the node ran: it goes on by its own. */
  readonly clock_held_s: number
  readonly policy_revision: string | null
  /** Where bundles come from by themselves; null where they do not. It keeps the node from nothing: what is in force decides. */
  readonly policy_source: SourceHealth | null
  /** How the gateways on one store compare; null where the node is alone. It keeps the node from nothing: each decides by its own. */
  readonly policy_gateways: ComparisonHealth | null
  /** Where events are shipped to: behind or down is worth knowing, and keeps the node from nothing. */
  readonly sinks: readonly {
    readonly name: string
    readonly state: string
    /** Durable events not yet handed over. */
    readonly lag: number
    /** Events of epochs that ended which a restart would send: their folders are needed until it is 0. */
    readonly owed: number
    /** What the receiver, or the way to it, last said no with; null while nothing did. */
    readonly last_error: string | null
  }[]
  /** Who cosigns the log from outside. */
  readonly witnesses: readonly {
    readonly name: string
    /** When its newest head was cosigned, epoch seconds; null: none yet. */
    readonly cosigned_at: number | null
    /** Durable events it has not cosigned. */
    readonly behind: number
  }[]
}

export interface Operations extends AsyncDisposable {
  readonly address: AddressInfo
}

/** What the port answers with. */
export interface Told {
  readonly health: () => Health
  /** How the policy fares, in OPA's form. */
  readonly policy: () => StatusReport
  readonly bundles: BundleServer
}

const KNOWN = 'GET /healthz, /readyz, /v1/status or /bundles/sallyport'

/** Opens the port; rejects with its own error. */
export async function openOperations(host: string, port: number, told: Told): Promise<Operations> {
  const server = createServer((request, response) => {
    const path = request.method === 'GET' ? request.url?.split('?')[0] : undefined
    if (path?.startsWith('/bundles/') === true) {
      void handOut(told.bundles, path, request, response)
      return
    }
    const { status, body } = answerTo(path, told)
    response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
    response.end(JSON.stringify(body))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the port is not a TCP port')
  return {
    address,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => void server.close(() => resolve()))
    },
  }
}

function answerTo(
  path: string | undefined,
  { health, policy }: Told,
): { readonly status: number; readonly body: unknown } {
  if (path === '/v1/status') return { status: 200, body: policy() }
  if (path !== '/healthz' && path !== '/readyz') return { status: 404, body: { error: KNOWN } }
  const now = health()
  const ready = Object.values(now.parts).every(Boolean)
  return { status: path === '/healthz' || ready ? 200 : 503, body: { ready, ...now } }
}

async function handOut(
  bundles: BundleServer,
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController()
  response.on('close', () => gone.abort())
  try {
    const { status, headers, body } = await bundles.answer(path, request.headers, gone.signal)
    response.writeHead(status, headers)
    response.end(body)
  } catch (error) {
    response.writeHead(500, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }))
  }
}

/** The EST server behind the gateway's own listener: real TLS, real limits, a store in memory. */
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { instant, issueServer, type EstOptions } from '#ca'
import { createEdge } from '../../gateway/listen/edge.ts'
import { estHandler, type EstLimits } from '../../gateway/listen/est.ts'
import { spkiOf } from './requests.ts'
import { Bench, newHouse, newKey, pem, random, TENANT, type House } from './support.ts'

export interface Site extends AsyncDisposable {
  readonly bench: Bench
  readonly port: number
  readonly url: string
  readonly folder: string
  /** SHA-256 of the root, hex. */
  readonly pin: string
  /** PEM of the root. */
  readonly root: string
  readonly reported: unknown[]
}

export async function openSite(
  options: {
    readonly est?: (bench: Bench) => Partial<EstOptions>
    readonly limits?: EstLimits
    readonly house?: House
    /** PEM of CAs whose clients are asked for, beside our own. */
    readonly asking?: readonly string[]
  } = {},
): Promise<Site> {
  const bench = await Bench.open(':memory:', options.house ?? (await newHouse(Date.now())))
  bench.now = Date.now()
  const key = newKey()
  const { chain } = await issueServer(
    {
      tenant: TENANT,
      gateway: 'gw-1',
      dnsNames: ['localhost'],
      ipAddresses: ['127.0.0.1'],
      publicKey: spkiOf(key),
      issuers: bench.house.issuers,
      now: instant(bench.now),
      random,
    },
    { store: bench.store, log: async () => undefined },
  )
  const reported: unknown[] = []
  const serve = bench.server(options.est?.(bench) ?? {})
  const { root, issuing } = bench.house.authority
  const edge = createEdge({
    certificate: {
      chain: chain.map((each) => pem(each)).join(''),
      key: String(key.export({ type: 'pkcs8', format: 'pem' })),
      clientAuthorities: [pem(issuing), pem(root), ...(options.asking ?? [])],
    },
    onTunnel: (socket) => socket.destroy(),
    onRequest: estHandler(serve, {
      report: (error) => reported.push(error),
      proven: () => {},
      limits: options.limits,
    }),
    onUpgrade: (_request, socket) => socket.destroy(),
    onFault: () => undefined,
  })
  const { port } = await edge.listen('127.0.0.1', 0)
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-est-'))
  return {
    bench,
    port,
    folder,
    reported,
    root: pem(root),
    pin: createHash('sha256').update(root).digest('hex'),
    url: `https://localhost:${port}`,
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]()
      await bench[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true })
    },
  }
}

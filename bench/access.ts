/**
 * The ways in: sessions opened, a web app behind a device, and `sallyport connect`, each beside what
 * does the same without asking anybody. What runs is in access/.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSession } from '../test/support/node.ts'
import { selfSigned } from '../test/transport/certificate.ts'
import type { App } from './access/app.ts'
import type { Load, Page } from './access/load.ts'
import type { Plain } from './access/plain.ts'
import { startNginx, type Nginx } from './access/nginx.ts'
import { DEVICE, SINK, startSite, type AccessSite } from './access/site.ts'
import type { Bench, Row, RunOptions } from './row.ts'
import { Remote } from './tunnel/rpc.ts'
import { median, ratios, row } from './tunnel/rows.ts'
import { cpuSeconds } from './tunnel/usage.ts'

/** Sessions that one vendor's tools open at the same time, and how many a round. */
const OPENERS = 4
const OPENINGS = 64
const CONNECTIONS = 16
const ADDED_MS = 1.5
const VS_NGINX = 0.5

interface Size {
  readonly rounds: number
  readonly seconds: number
  readonly trips: number
}

/** Two proxies of Node's own, one behind the other: no policy, no tunnel. */
interface PlainPair {
  readonly port: number
  readonly near: number
}

interface Ground {
  readonly site: AccessSite
  readonly load: Remote<Load>
  readonly app: Remote<App>
  readonly size: Size
  readonly plain: PlainPair
}

const program = (name: string) => join(import.meta.dirname, 'access', name)

export const bench: Bench = {
  name: 'access',
  title: 'sessions, web apps and `sallyport connect`, beside nginx and bare TLS',
  async run({ quick, only = [] }: RunOptions): Promise<Row[]> {
    const size = quick
      ? { rounds: 5, seconds: 2, trips: 400 }
      : { rounds: 9, seconds: 10, trips: 3000 }
    const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
    try {
      return await measured(directory, size, only)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  },
}

/** `only`: words of `opens`, `web`, `connect`; all of them where it is empty. */
async function measured(directory: string, size: Size, only: readonly string[]): Promise<Row[]> {
  const wanted = (part: string) => only.length === 0 || only.includes(part)
  await using app = new Remote<App>(program('app.ts'))
  await using load = new Remote<Load>(program('load.ts'))
  await using near = new Remote<Plain>(program('plain.ts'))
  await using far = new Remote<Plain>(program('plain.ts'))
  const certificate = await selfSigned()
  const ports = await app.call('listen', certificate)
  const behind = await far.call('listen', { ...certificate, next: `http://127.0.0.1:${ports.app}` })
  const next = `https://127.0.0.1:${behind}`
  const plain = { port: await near.call('listen', { ...certificate, next }), near: near.pid }
  await using site = await startSite(directory, ports)
  const ground = { site, load, app, size, plain }
  const opens = wanted('opens') ? await openRows(ground) : []
  let nginx: Nginx | string
  try {
    nginx = await startNginx(directory, certificate, ports.app)
  } catch (error) {
    nginx = error instanceof Error ? error.message : String(error)
  }
  try {
    return [
      ...opens,
      ...(wanted('web') ? await webRows(ground, nginx, certificate.cert, ports.app) : []),
      ...(wanted('connect') ? await connectRows(ground, ports.tls, certificate.cert) : []),
    ]
  } finally {
    if (typeof nginx !== 'string') await nginx[Symbol.asyncDispose]()
  }
}

// Sessions.

interface Openings {
  readonly perSecond: number
  readonly p99: number
  /** Authorized calls that only read, the same client, as many at once: per second. */
  readonly reads: number
}

async function openRows({ site, size }: Ground): Promise<Row[]> {
  const rounds: Openings[] = []
  for (let at = -2; at < size.rounds; at++) {
    const round = await openings(site)
    if (at >= 0) rounds.push(round)
  }
  const reads = median(rounds.map((round) => round.reads)).toFixed(0)
  return [
    row(
      {
        metric: 'session_opens_per_s',
        unit: '/s',
        reference: `POST /sessions, ${OPENERS} at once, decided and on disk; with the same client ${reads} reads of one session a second`,
      },
      rounds.map(({ perSecond }) => perSecond),
      '',
    ),
    row(
      {
        metric: 'session_open_p99_ms',
        unit: 'ms',
        reference: `of ${OPENINGS} openings, ${OPENERS} at once; the client's signatures counted`,
      },
      rounds.map(({ p99 }) => p99),
      '',
    ),
  ]
}

/** Every session is ended before its worker opens the next: a person may have only so many. */
async function openings({ vendor }: AccessSite): Promise<Openings> {
  const times: number[] = []
  const reads: number[] = []
  const clocked = async <T>(list: number[], call: Promise<T>): Promise<T> => {
    const began = performance.now()
    const value = await call
    list.push(performance.now() - began)
    return value
  }
  await workers(OPENINGS, async () => {
    const { id } = await clocked(times, openSession(vendor, DEVICE, SINK))
    await clocked(reads, vendor.ask('GET', `/sessions/${id}`))
    await vendor.ask('POST', `/sessions/${id}/end`)
  })
  const sorted = times.toSorted((a, b) => a - b)
  return {
    perSecond: perSecond(times),
    p99: sorted[Math.ceil(0.99 * sorted.length) - 1] ?? Number.NaN,
    reads: perSecond(reads),
  }
}

/** Of `OPENERS` that do nothing else. */
function perSecond(ms: readonly number[]): number {
  return (OPENERS * ms.length * 1000) / ms.reduce((sum, one) => sum + one, 0)
}

/** `count` calls, `OPENERS` of them under way. */
async function workers(count: number, call: () => Promise<void>): Promise<void> {
  let left = count
  const worker = async (): Promise<void> => {
    while (left-- > 0) await call()
  }
  await Promise.all(Array.from({ length: OPENERS }, worker))
}

// A web app.

interface WebPath {
  readonly page: Page
  /** In the gateway's place, and both. */
  readonly near: readonly number[]
  readonly both: readonly number[]
}

interface Web {
  readonly perCpu: number
  readonly perCpuBoth: number
  readonly perSecond: number
  readonly p50: number
}

async function web({ load, size }: Ground, { page, near, both }: WebPath): Promise<Web> {
  const [before, beforeBoth] = [total(near), total(both)]
  const { seconds } = size
  const asked = { page, connections: CONNECTIONS, seconds, fresh: false }
  const done = await load.call('requests', asked)
  const [cpu, cpuBoth] = [total(near) - before, total(both) - beforeBoth]
  const times = (await load.call('trips', { page, count: size.trips })).toSorted()
  return {
    perCpu: done / cpu,
    perCpuBoth: done / cpuBoth,
    perSecond: done / seconds,
    p50: times[times.length >> 1] ?? Number.NaN,
  }
}

/** Requests per CPU-second in the gateway's place. `fresh`: each is for another page, so none has an answer of another one. */
async function perCpu(
  { load, size }: Ground,
  { page, near }: Pick<WebPath, 'page' | 'near'>,
  fresh: boolean,
): Promise<number> {
  const before = total(near)
  const { seconds } = size
  const asked = { page, connections: CONNECTIONS, seconds, fresh }
  return (await load.call('requests', asked)) / (total(near) - before)
}

const total = (pids: readonly number[]) => cpuSeconds(pids).reduce((sum, one) => sum + one, 0)

async function webRows(
  ground: Ground,
  nginx: Nginx | string,
  ca: string,
  port: number,
): Promise<Row[]> {
  const { site, size, plain } = ground
  const bare = { servername: null, headers: {} }
  const node = {
    page: { ...bare, url: `https://127.0.0.1:${plain.port}/`, ca },
    near: [plain.near],
  }
  const ours: WebPath = {
    page: site.page,
    near: [site.gateway.pid],
    both: [site.gateway.pid, site.agent.pid],
  }
  const direct: WebPath = {
    page: { ...bare, url: `http://127.0.0.1:${port}/`, ca: null },
    near: [],
    both: [],
  }
  const theirs: WebPath | undefined =
    typeof nginx === 'string'
      ? undefined
      : {
          page: { ...bare, url: `https://127.0.0.1:${nginx.port}/`, ca },
          near: [nginx.near.pid],
          both: [nginx.near.pid, nginx.far.pid],
        }
  const seen = {
    ours: [] as Web[],
    direct: [] as Web[],
    theirs: [] as Web[],
    fresh: [] as number[],
    node: [] as number[],
  }
  for (let round = -1; round < size.rounds; round++) {
    const web_ = {
      direct: await web(ground, direct),
      theirs: theirs && (await web(ground, theirs)),
      ours: await web(ground, ours),
    }
    const each = await perCpu(ground, ours, true)
    const bareNode = await perCpu(ground, node, false)
    if (round < 0) continue
    seen.fresh.push(each)
    seen.node.push(bareNode)
    seen.direct.push(web_.direct)
    if (web_.theirs) seen.theirs.push(web_.theirs)
    seen.ours.push(web_.ours)
  }
  return rowsOf(seen, typeof nginx === 'string' ? nginx : '')
}

function rowsOf(
  {
    ours,
    direct,
    theirs,
    fresh: each,
    node,
  }: Record<'ours' | 'direct' | 'theirs', readonly Web[]> &
    Record<'fresh' | 'node', readonly number[]>,
  why: string,
): Row[] {
  const of = (list: readonly Web[], figure: keyof Web) => list.map((one) => one[figure])
  const said = (list: readonly number[]) => (list.length === 0 ? '-' : median(list).toPrecision(3))
  const mid = (list: readonly Web[], figure: keyof Web) => said(of(list, figure))
  const added =
    theirs.length === 0 ? '-' : (median(of(theirs, 'p50')) - median(of(direct, 'p50'))).toFixed(2)
  return [
    row(
      {
        metric: 'rps_per_cpu_vs_nginx',
        unit: 'x',
        reference: `requests per CPU-second of the gateway (${mid(ours, 'perCpu')}) over nginx in its place, TLS to TLS (${mid(theirs, 'perCpu')}); bar ≥ ${VS_NGINX}`,
      },
      ratios(of(ours, 'perCpu'), of(theirs, 'perCpu')),
      why,
    ),
    row(
      {
        metric: 'rps_per_cpu_node_vs_nginx',
        unit: 'x',
        reference: `plain Node proxy TLS to TLS, node:https before undici, no session and no policy (${said(node)}), over the same nginx: what Node itself leaves room for`,
      },
      ratios(node, of(theirs, 'perCpu')),
      why,
    ),
    row(
      {
        metric: 'rps_per_cpu_vs_node',
        unit: 'x',
        reference: 'requests per CPU-second of the gateway over the plain Node proxy in its place',
      },
      ratios(of(ours, 'perCpu'), node),
      '',
    ),
    row(
      {
        metric: 'rps_per_cpu_fresh_vs_nginx',
        unit: 'x',
        reference: `the same where every request is for another page, so that each is decided and logged by itself (${said(each)})`,
      },
      ratios(each, of(theirs, 'perCpu')),
      why,
    ),
    row(
      {
        metric: 'rps_per_cpu_chain_vs_nginx',
        unit: 'x',
        reference: `the same of gateway and agent (${mid(ours, 'perCpuBoth')}) over two nginx (${mid(theirs, 'perCpuBoth')})`,
      },
      ratios(of(ours, 'perCpuBoth'), of(theirs, 'perCpuBoth')),
      why,
    ),
    row(
      {
        metric: 'added_p50_ms',
        unit: 'ms',
        reference: `a request on a kept connection less the same to the app itself (${mid(direct, 'p50')} ms); two nginx add ${added}; bar ≤ ${ADDED_MS}`,
      },
      ours.map(({ p50 }, round) => p50 - (direct[round]?.p50 ?? Number.NaN)),
      '',
    ),
    row(
      {
        metric: 'web_requests_per_s',
        unit: '/s',
        reference: `${CONNECTIONS} connections, 1 KiB; two nginx ${mid(theirs, 'perSecond')}, the app itself ${mid(direct, 'perSecond')}`,
      },
      of(ours, 'perSecond'),
      '',
    ),
  ]
}

// A port of the vendor's machine.

async function connectRows({ site, load, app, size }: Ground, tls: number, ca: string) {
  const ms = size.seconds * 500
  const rate = async (port: number, anchor: string | null): Promise<number> => {
    const before = await app.call('received', null)
    await load.call('pour', { port, ca: anchor, ms })
    const after = await app.call('received', null)
    return (after.bytes - before.bytes) / (after.at - before.at) / 1e6
  }
  const ours: number[] = []
  const bare: number[] = []
  for (let round = -1; round < size.rounds; round++) {
    const pair = [await rate(site.connected, null), await rate(tls, ca)] as const
    if (round < 0) continue
    ours.push(pair[0])
    bare.push(pair[1])
  }
  return [
    row(
      {
        metric: 'connect_tput_vs_raw_tls',
        unit: 'x',
        reference: `a socket through \`sallyport connect\`, gateway and agent (${median(ours).toFixed(2)} GB/s) over one bare TLS connection (${median(bare).toFixed(2)} GB/s)`,
      },
      ratios(ours, bare),
      '',
    ),
  ]
}

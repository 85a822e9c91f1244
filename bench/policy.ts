/** How long a decision takes, in process, and against an OPA server over loopback on the same input. */
import { spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import type { ChildProcess } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BUILTIN_BUNDLE, inputFor, loadBundle, PolicyEngine } from '#policy'
import type { Input } from '#policy'
import { examineApart } from '../gateway/policy/examiner.ts'
import { canonicalJson } from '../policy/canonical.ts'
import { signFiles } from '../policy/signature.ts'
import { readTar, writeTar } from '../policy/tar.ts'
import { findOpa, OPA_VERSION, processEnvironment } from '../policy/toolchain/opa.ts'
import { baseInputs, defaultSite, readVectors } from '../policy/toolchain/vectors.ts'
import { examineBundle } from '../policy/candidate.ts'
import { reauthorization } from './reauthorization.ts'
import type { Bench, Row } from './row.ts'

const BARS = { p50: 50, p99: 150, ratio: 20, replay: 20_000, stall: 20 }

function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

/** `±n %`: half the distance between the extremes, over the median. */
function spreadOf(values: readonly number[]): string {
  const half = (Math.max(...values) - Math.min(...values)) / 2
  return `±${Math.round((100 * half) / median(values))} %`
}

async function engineOf(): Promise<PolicyEngine> {
  const engine = PolicyEngine.unavailable()
  const bytes = await readFile(BUILTIN_BUNDLE)
  await engine.activate(await loadBundle(bytes, { trust: 'builtin', highWater: null }))
  return engine
}

/** A site of one megabyte: the default one, and 200 zones more with as many standing rights as fit. */
async function largeSite(): Promise<unknown> {
  const site = (await defaultSite()) as { zones: Record<string, { readonly standing: unknown[] }> }
  const zones = { ...site.zones }
  const right = {
    id: 'standing-000000',
    group: 'maintenance-of-line-0'.padEnd(120, '-'),
    kinds: ['modbus', 'ssh'],
  }
  const room = 1024 * 1024 - JSON.stringify({ site }).length
  const bare = JSON.stringify(site.zones['critical']).length + 16
  const rights = Math.floor((room / 200 - bare) / (JSON.stringify(right).length + 1)) - 1
  const standing = Array.from({ length: rights }, (_, at) => ({
    ...right,
    id: `standing-${String(at).padStart(6, '0')}`,
  }))
  for (let at = 0; at < 200; at++)
    zones[`zone-${String(at).padStart(6, '0')}`] = { ...site.zones['critical'], standing }
  return { ...site, zones }
}

/** A signed bundle with that site, and who is trusted to sign it. */
async function largeBundle(): Promise<{ bytes: Uint8Array; keys: Map<string, string> }> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const files = new Map(readTar(new Uint8Array(await readFile(BUILTIN_BUNDLE))))
  const data = canonicalJson({ site: await largeSite() })
  files.set('data.json', new TextEncoder().encode(data))
  const signer = { key: privateKey, keyId: 'bench', seq: 1, iat: 1795082400 }
  files.set('.signatures.json', signFiles(files, signer))
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  return { bytes: writeTar(files), keys: new Map([['bench', pem]]) }
}

/** Decides once a turn of the event loop while something else goes on; the longest turn, in ms. */
async function longestTurn(
  engine: PolicyEngine,
  input: Input,
  work: Promise<unknown>,
): Promise<number> {
  let going = true
  const done = work.finally(() => (going = false))
  let longest = 0
  let before = performance.now()
  while (going) {
    const { allow } = engine.decide('session.open', input, { decisionId: 'd_1' })
    if (!allow) throw new Error('a decision was lost')
    await new Promise((resolve) => setImmediate(resolve))
    const now = performance.now()
    longest = Math.max(longest, now - before)
    before = now
  }
  await done
  return longest
}

async function activationRow(engine: PolicyEngine, input: Input, quick: boolean): Promise<Row> {
  const { bytes, keys } = await largeBundle()
  const stalls: number[] = []
  const idle: number[] = []
  for (let at = 0; at < (quick ? 5 : 15); at++) {
    const sleep = new Promise((resolve) => setTimeout(resolve, 500))
    idle.push(await longestTurn(engine, input, sleep))
    const activate = async (): Promise<void> => {
      engine.adopt(await examineApart(bytes, { trust: keys, highWater: null }))
    }
    stalls.push(await longestTurn(engine, input, activate()))
  }
  const reference = `longest turn of the event loop, decisions going on; without activation ${Math.round(10 * median(idle)) / 10} ms; bar ${BARS.stall}`
  const value = Math.round(10 * median(stalls)) / 10
  return { metric: 'activate_1mb_stall_ms', value, unit: 'ms', reference, spread: spreadOf(stalls) }
}

/** Every vector of the default site, over and over: what a replay of a log does. */
async function replayRow(engine: PolicyEngine, quick: boolean): Promise<Row> {
  const site = JSON.stringify(await defaultSite())
  const vectors = (await readVectors()).filter(({ data }) => JSON.stringify(data.site) === site)
  const rates: number[] = []
  for (let round = 0; round < (quick ? 4 : 8); round++) {
    const before = process.cpuUsage()
    const times = quick ? 40 : 120
    for (let at = 0; at < times; at++) {
      for (const { point, input } of vectors) engine.decide(point, input, { decisionId: 'd_1' })
    }
    const { user, system } = process.cpuUsage(before)
    if (round > 0) rates.push((times * vectors.length) / ((user + system) / 1e6))
  }
  const reference = `${vectors.length} vectors of all points, per CPU-second, all threads; bar ${BARS.replay}`
  const value = Math.round(median(rates))
  return { metric: 'replay_per_s', value, unit: '1/s', reference, spread: spreadOf(rates) }
}

interface Run {
  readonly p50: number
  readonly p99: number
  readonly perSecond: number
}

/** Decides `count` times, alternating two inputs so that nothing can be remembered. */
function measure(engine: PolicyEngine, input: Input, count: number): Run {
  const other = inputFor('session.open', { ...input, request_id: 'r-2' })
  const times = new Float64Array(count)
  const started = performance.now()
  for (let at = 0; at < count; at++) {
    const before = performance.now()
    const { allow } = engine.decide('session.open', at % 2 === 0 ? input : other, {
      decisionId: 'd_1',
    })
    times[at] = (performance.now() - before) * 1000
    if (!allow) throw new Error('the base input is not allowed')
  }
  const seconds = (performance.now() - started) / 1000
  times.sort()
  return { p50: quantile(times, 0.5), p99: quantile(times, 0.99), perSecond: count / seconds }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

function post(agent: Agent, port: number, path: string, body: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    }
    const options = { agent, port, host: '127.0.0.1', path, method: 'POST', headers }
    const call = request(options, (answer) => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', (part: string) => (text += part))
      answer.on('end', () => resolve(text))
    })
    call.on('error', reject)
    call.end(body)
  })
}

async function untilUp(agent: Agent, port: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    try {
      await post(agent, port, '/v1/data/site/settings', '{}')
      return
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  throw new Error('the OPA server did not come up')
}

/** Decisions a second of an OPA server on one core, asked one at a time over keep-alive. */
async function opaRate(path: string, input: Input, milliseconds: number): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'sallyport-bench-'))
  const data = join(directory, 'data.json')
  const port = await freePort()
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  let server: ChildProcess | undefined
  try {
    await writeFile(data, JSON.stringify({ site: await defaultSite() }))
    const room = (name: string): string => new URL(`../policy/${name}`, import.meta.url).pathname
    const ignore = ['--ignore', '*_test.rego', '--ignore', 'lock.json', '--ignore', 'manifest.json']
    const files = [room('sallyport'), room('default'), data]
    const flags = ['run', '--server', '--addr', `127.0.0.1:${port}`, '--log-level', 'error']
    const more = [
      '--ignore',
      'site.json',
      '--ignore',
      'vectors',
      '--ignore',
      '*.tar',
      '--disable-telemetry',
    ]
    const env = { ...process.env, GOMAXPROCS: '1' }
    server = spawn(path, [...flags, ...ignore, ...more, ...files], { env, stdio: 'ignore' })
    await untilUp(agent, port)
    const body = JSON.stringify({ input })
    const target = '/v1/data/sallyport/session/open/decision'
    const answer = JSON.parse(await post(agent, port, target, body)) as {
      result?: { allow?: boolean }
    }
    if (answer.result?.allow !== true)
      throw new Error('the OPA server did not allow the base input')
    for (let at = 0; at < 200; at++) await post(agent, port, target, body)
    let count = 0
    const started = performance.now()
    while (performance.now() - started < milliseconds) {
      await post(agent, port, target, body)
      count++
    }
    return (1000 * count) / (performance.now() - started)
  } finally {
    agent.destroy()
    if (server !== undefined && server.exitCode === null) {
      const ended = new Promise((resolve) => server?.once('exit', resolve))
      server.kill('SIGKILL')
      await ended
    }
    await rm(directory, { recursive: true, force: true })
  }
}

async function againstOpa(input: Input, perSecond: number, quick: boolean): Promise<Row> {
  const base = { metric: 'vs_opa_rest', unit: 'x' }
  const opa = await findOpa(processEnvironment())
  if (opa === undefined) {
    const why = `no opa ${OPA_VERSION} on PATH or in the cache`
    return { ...base, value: null, reference: `an OPA server, bar ${BARS.ratio} x`, why }
  }
  const rate = await opaRate(opa.path, input, quick ? 2000 : 8000)
  const reference = `opa ${OPA_VERSION} server, one core, loopback keep-alive: ${Math.round(rate)}/s; bar ${BARS.ratio} x`
  return { ...base, value: Math.round((10 * perSecond) / rate) / 10, reference }
}

/** The built-in rules, and the same over site data that wants two approvals. */
async function reauthorizationRows(): Promise<Row[]> {
  const builtin = await loadBundle(await readFile(BUILTIN_BUNDLE), {
    trust: 'builtin',
    highWater: null,
  })
  const data = structuredClone(builtin.data) as {
    site: { zones: { default: { approvals: number } } }
  }
  data.site.zones.default.approvals = 2
  const strict = { ...builtin, data, dataText: canonicalJson(data), vectors: [] }
  const engine = PolicyEngine.unavailable()
  return reauthorization(engine, await examineBundle(builtin), await examineBundle(strict))
}

export const bench: Bench = {
  name: 'policy',
  title: 'a decision at session.open: in process, and against an OPA server',
  async run({ quick }) {
    const engine = await engineOf()
    const input = (await baseInputs())['session.open']
    const bytes = Buffer.byteLength(JSON.stringify(input))
    measure(engine, input, 5000)
    const rounds = Array.from({ length: quick ? 3 : 7 }, () =>
      measure(engine, input, quick ? 5000 : 20_000),
    )
    const p50 = rounds.map((round) => round.p50)
    const p99 = rounds.map((round) => round.p99)
    const rate = median(rounds.map((round) => round.perSecond))
    const about = `in process, ${bytes} bytes of input`
    const round = (value: number): number => Math.round(value * 10) / 10
    return [
      {
        metric: 'open_p50_us',
        value: round(median(p50)),
        unit: 'us',
        reference: `${about}; bar ${BARS.p50}`,
        spread: spreadOf(p50),
      },
      {
        metric: 'open_p99_us',
        value: round(median(p99)),
        unit: 'us',
        reference: `${about}; bar ${BARS.p99}`,
        spread: spreadOf(p99),
      },
      await againstOpa(input, rate, quick),
      await replayRow(engine, quick),
      await activationRow(engine, input, quick),
      ...(await reauthorizationRows()),
    ]
  },
}

/** How long a decision takes, in process, and against an OPA server over loopback on the same input. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BUILTIN_BUNDLE, inputFor, loadBundle, PolicyEngine } from '#policy'
import type { Input } from '#policy'
import { findOpa, OPA_VERSION, processEnvironment } from '../policy/toolchain/opa.ts'
import { baseInputs, defaultSite } from '../policy/toolchain/vectors.ts'
import type { Bench, Row } from './row.ts'

const BARS = { p50: 50, p99: 150, ratio: 20 }

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
    ]
  },
}

/**
 * The CA's rates, each beside its limit of the same run: issuance beside raw signatures, an EST body
 * beside a signature and a verification, an enrolment beside a bare handshake and that body.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { createPublicKey, sign, verify } from 'node:crypto'
import { once } from 'node:events'
import { Agent, request } from 'node:https'
import { connect, type SecureContextOptions } from 'node:tls'
import { importKey } from '../ca/algorithm.ts'
import { readApplicant } from '../ca/applicant.ts'
import type { Ask, Ready } from './ca-server.ts'
import { answered, issued, newBody, newHouse, prepared, served, type House } from './ca-work.ts'
import type { Bench, Row } from './row.ts'

/** `warm`: rounds, or requests served, before anything counts: a gateway runs for months, its compiler for seconds. */
const THREAD = {
  quick: { warm: 600, rounds: 500, count: 10, seconds: 20 },
  full: { warm: 1_000, rounds: 3_000, count: 10, seconds: 180 },
} as const
const SERVED = {
  quick: { warm: 2_000, rounds: 20, count: 60, seconds: 30 },
  full: { warm: 10_000, rounds: 60, count: 100, seconds: 300 },
} as const
const BARS = { issuance: 0.7, body: 0.7, enrol: 0.8 } as const

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

/** `±n %`: half of what the middle half of the rounds spans; a round that lost its core says nothing. */
function spreadOf(values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.floor(sorted.length * share)] ?? Number.NaN
  return `±${Math.round((50 * (at(0.75) - at(0.25))) / at(0.5))} %`
}

function row(metric: string, values: readonly number[], unit: string, reference: string): Row {
  return { metric, value: median(values), unit, reference, spread: spreadOf(values) }
}

const NAMES = [
  'sign',
  'verify',
  'known',
  'calls',
  'read',
  'prepare',
  'issue',
  'body',
  'checked',
] as const
type Name = (typeof NAMES)[number]
type Work = (at: number) => unknown

/** What is measured on one thread, each piece of work for one of `many` requests. */
function works(house: House, many: number): Record<Name, Work> {
  const cases = Array.from({ length: many }, (_, at) => {
    const device = `press-${at}`
    const body = newBody(device)
    const { spki, info, signature } = readApplicant(body)
    const key = importKey(spki)
    const tbs = prepared(device, key, house)
    const bytes = { key: Buffer.from(spki), format: 'der', type: 'spki' } as const
    return { device, body, key, tbs, info, signature, bytes, imported: createPublicKey(bytes) }
  })
  const of = (at: number) => {
    const one = cases[at % many]
    if (one === undefined) throw new Error('no such case')
    return one
  }
  return {
    sign: (at) => sign('sha256', of(at).tbs, house.key),
    verify: (at) => verify('sha256', of(at).info, of(at).bytes, of(at).signature),
    known: (at) => verify('sha256', of(at).info, of(at).imported, of(at).signature),
    calls: (at) => {
      verify('sha256', of(at).info, of(at).bytes, of(at).signature)
      return sign('sha256', of(at).tbs, house.key)
    },
    read: (at) => readApplicant(of(at).body),
    prepare: (at) => prepared(of(at).device, of(at).key, house),
    issue: (at) => issued(of(at).device, of(at).key, house),
    body: (at) => answered(of(at).device, of(at).body, house),
    checked: (at) => served(of(at).device, of(at).body, house),
  }
}

/** So many rounds of so many; fewer, but at least three, on a machine that does not get there in time. */
interface Size {
  readonly warm: number
  readonly rounds: number
  readonly count: number
  readonly seconds: number
}
const LEAST_ROUNDS = 3

function limit({ seconds }: Size): (round: number) => boolean {
  const until = performance.now() + seconds * 1_000
  return (round) => round >= LEAST_ROUNDS && performance.now() > until
}

/**
 * Microseconds each, a list per piece of work: short turns, one after another, so that all share the
 * noise. By the clock: a thread's CPU time is kept by the tick of the kernel, longer than a turn.
 */
async function onOneThread(size: Size): Promise<Record<Name, number[]>> {
  const { warm: unmeasured, rounds, count: turn } = size
  const table = works(await newHouse(), 64)
  const taken = Object.fromEntries(NAMES.map((name) => [name, [] as number[]]))
  let enough = limit(size)
  for (let round = -unmeasured; round < rounds && !enough(round); round++) {
    if (round === 0) enough = limit(size)
    for (const name of NAMES) {
      const work = table[name]
      const began = performance.now()
      for (let at = 0; at < turn; at++) await work(at)
      if (round >= 0) taken[name]?.push(((performance.now() - began) * 1_000) / turn)
    }
  }
  return taken as Record<Name, number[]>
}

const BLOCK = 25

/** Of every 25 rounds the first quartile: whoever took the core away meanwhile is not what is measured. */
function calm(values: readonly number[]): number[] {
  const quartiles: number[] = []
  for (let at = 0; at < values.length; at += BLOCK) {
    const block = values.slice(at, at + BLOCK).toSorted((a, b) => a - b)
    quartiles.push(block[Math.floor(block.length / 4)] ?? Number.NaN)
  }
  return quartiles
}

/** The ratio of lists, one of the same rounds at a time. */
function each(
  lists: Readonly<Record<Name, readonly number[]>>,
  over: (us: Readonly<Record<Name, number>>) => number,
): number[] {
  return lists.sign.map((_, at) => {
    const us = NAMES.map((name) => [name, lists[name][at] ?? Number.NaN] as const)
    return over(Object.fromEntries(us) as Record<Name, number>)
  })
}

async function threadRows(quick: boolean): Promise<Row[]> {
  const taken = await onOneThread(THREAD[quick ? 'quick' : 'full'])
  const us = Object.fromEntries(NAMES.map((name) => [name, calm(taken[name])])) as typeof taken
  const cost = (name: Name, metric: string) => row(metric, us[name], 'us', 'one thread')
  return [
    row(
      'issuance_vs_sign',
      each(us, (t) => t.sign / t.issue),
      'x',
      `crypto.sign of the same bytes, P-256; bar ${BARS.issuance}`,
    ),
    row(
      'est_body_vs_ceiling',
      each(us, (t) => (t.sign + t.known) / t.body),
      'x',
      `1/(1/sign + 1/verify), the key imported beforehand; bar ${BARS.body}`,
    ),
    row(
      'EST body, key in bytes',
      each(us, (t) => (t.sign + t.verify) / t.body),
      'x',
      '1/(1/sign + 1/verify) with the key as a request brings it, its import counted',
    ),
    row(
      'the two calls alone, key known before',
      each(us, (t) => (t.sign + t.known) / t.calls),
      'x',
      'the same: what crypto.verify and crypto.sign by themselves reach of it',
    ),
    row(
      'EST body, own signature checked',
      each(us, (t) => (t.sign + t.verify + t.known) / t.checked),
      'x',
      '1/(1/sign + 1/verify + 1/verify): our own key is known before',
    ),
    cost('sign', 'raw sign, P-256'),
    cost('verify', 'raw verify, P-256, key in bytes'),
    cost('known', 'raw verify, P-256, key known before'),
    cost('prepare', 'prepare: names, template, lint'),
    cost('issue', 'issuance: prepare, sign, assemble'),
    cost('read', 'request read'),
    cost('body', 'EST body'),
    cost('checked', 'EST body and check of our signature'),
  ]
}

/** The server's process, asked one thing at a time. */
class Served implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #exited: Promise<unknown>
  constructor() {
    this.#child = fork(new URL('./ca-server.ts', import.meta.url))
    this.#exited = once(this.#child, 'exit')
  }
  async ask<T>(ask: Ask): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const ended = (): void => reject(new Error('the server of the bench ended'))
    this.#child.once('exit', ended)
    this.#child.once('message', ({ value, error }: { value: T; error?: string }) => {
      this.#child.off('exit', ended)
      if (error === undefined) resolve(value)
      else reject(new Error(error))
    })
    this.#child.send(ask)
    return await promise
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.ask({ ask: 'end' })
    await this.#exited
  }
}

interface Target {
  readonly port: number
  readonly tls: SecureContextOptions & { readonly servername: string }
  readonly client: string
}
const CALLERS = 32

/** `count` calls by a few callers at a time. */
async function load(count: number, call: (at: number) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: CALLERS }, async () => {
      while (next < count) await call(next++)
    }),
  )
}

/** A mutual handshake, ended by the server as soon as it stands. */
async function handshake({ port, tls }: Target): Promise<void> {
  const socket = connect({ ...tls, host: '127.0.0.1', port, ALPNProtocols: ['sallyport/1'] })
  // Without this an answer that says nothing never ends.
  socket.resume()
  await once(socket, 'close')
  if (!socket.authorized) throw new Error('the server is not who it should be')
}

interface Post {
  readonly operation: 'simpleenroll' | 'simplereenroll'
  readonly body: Uint8Array
  readonly token?: string
}

async function post({ port, tls }: Target, agent: Agent | false, what: Post): Promise<void> {
  const { operation, body, token } = what
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const headers = {
    'content-type': 'application/pkcs10',
    'content-length': body.length,
    ...(token === undefined ? {} : { authorization: `Basic ${btoa(`:${token}`)}` }),
  }
  const path = `/.well-known/est/${operation}`
  const sent = request({ ...tls, host: '127.0.0.1', port, agent, method: 'POST', path, headers })
  sent.on('response', (response) => {
    let text = ''
    response.setEncoding('latin1')
    response.on('data', (chunk: string) => (text += chunk))
    response.on('end', () => {
      if (response.statusCode === 200) resolve()
      else reject(new Error(`EST answered ${response.statusCode}: ${text}`))
    })
  })
  sent.on('error', reject)
  sent.end(body)
  await promise
}

interface Issue {
  readonly device: string
  readonly token: string
}
interface Measured {
  /** us of CPU each, all threads of the server. */
  readonly cpu: number
  /** A second of the clock, both ends on this machine. */
  readonly perSecond: number
}
type Path = 'handshake' | 'fresh' | 'kept' | 'renewed'

async function batch(
  server: Served,
  count: number,
  call: (at: number) => Promise<void>,
): Promise<Measured> {
  const before = await server.ask<number>({ ask: 'cpu' })
  const began = performance.now()
  await load(count, call)
  const seconds = (performance.now() - began) / 1_000
  const after = await server.ask<number>({ ask: 'cpu' })
  return { cpu: (after - before) / count, perSecond: count / seconds }
}

async function enrolments(server: Served, prefix: string, count: number): Promise<Post[]> {
  const tokens = await server.ask<Issue[]>({ ask: 'tokens', prefix: `${prefix}-`, count })
  return tokens.map(({ device, token }) => {
    return { operation: 'simpleenroll', body: newBody(device), token }
  })
}

function sending(target: Target, list: readonly Post[], agent: Agent | false) {
  return (at: number): Promise<void> => {
    const what = list[at]
    if (what === undefined) throw new Error('no such request')
    return post(target, agent, what)
  }
}

async function round(
  server: Served,
  target: Target,
  agent: Agent,
  { name, count }: { readonly name: string; readonly count: number },
): Promise<Record<Path, Measured> & { readonly body: number }> {
  const renewals = Array.from({ length: count }, (): Post => {
    return { operation: 'simplereenroll', body: newBody(target.client) }
  })
  const first = await enrolments(server, `${name}f`, count)
  const second = await enrolments(server, `${name}k`, count)
  const shaken = await batch(server, count, () => handshake(target))
  const fresh = await batch(server, count, sending(target, first, false))
  const body = (await server.ask<number>({ ask: 'bodies', count })) / count
  const kept = await batch(server, count, sending(target, second, agent))
  const renewed = await batch(server, count, sending(target, renewals, false))
  return { handshake: shaken, fresh, body, kept, renewed }
}

/** Until the server's code is compiled, as far as time allows: its compiler's threads count as its CPU. */
async function warm(server: Served, target: Target, agent: Agent, size: Size): Promise<void> {
  const count = 200
  const until = performance.now() + size.seconds * 800
  for (let done = 0; done < size.warm && performance.now() < until; done += count)
    await round(server, target, agent, { name: `w${done}`, count })
}

async function servedRows(quick: boolean): Promise<Row[]> {
  await using server = new Served()
  const { port, root, client } = await server.ask<Ready>({ ask: 'ready' })
  const tls = { ca: root, key: client.key, cert: client.chain, servername: 'localhost' }
  const target = { port, tls, client: client.device }
  const size = SERVED[quick ? 'quick' : 'full']
  const agent = new Agent({ keepAlive: true, maxSockets: CALLERS })
  await warm(server, target, agent, size)
  const enough = limit(size)
  const done: Awaited<ReturnType<typeof round>>[] = []
  for (let number = 0; number < size.rounds && !enough(number); number++)
    done.push(await round(server, target, agent, { name: `m${number}`, count: size.count }))
  agent.destroy()
  const list = (of: (one: (typeof done)[number]) => number) => done.map(of)
  const cpu = 'CPU of the server, all threads'
  const rate = 'the clock; both ends and all else on this machine'
  return [
    row(
      'enrol_vs_handshake',
      list((t) => (t.handshake.cpu + t.body) / t.fresh.cpu),
      'x',
      `1/(1/handshake + 1/body) per CPU-second; bar ${BARS.enrol}`,
    ),
    row(
      'bare mTLS handshake',
      list((t) => t.handshake.cpu),
      'us',
      cpu,
    ),
    row(
      'EST body in the server',
      list((t) => t.body),
      'us',
      cpu,
    ),
    row(
      'enrolment, fresh mTLS',
      list((t) => t.fresh.cpu),
      'us',
      cpu,
    ),
    row(
      'enrolment, kept-alive mTLS',
      list((t) => t.kept.cpu),
      'us',
      cpu,
    ),
    row(
      'renewal, fresh mTLS',
      list((t) => t.renewed.cpu),
      'us',
      cpu,
    ),
    row(
      'bare mTLS handshakes',
      list((t) => t.handshake.perSecond),
      '/s',
      rate,
    ),
    row(
      'enrolments, fresh mTLS',
      list((t) => t.fresh.perSecond),
      '/s',
      rate,
    ),
    row(
      'enrolments, kept-alive mTLS',
      list((t) => t.kept.perSecond),
      '/s',
      rate,
    ),
    row(
      'renewals, fresh mTLS',
      list((t) => t.renewed.perSecond),
      '/s',
      rate,
    ),
  ]
}

export const bench: Bench = {
  name: 'ca',
  title: 'certificates: issued, answered over EST, enrolled over mTLS, each beside its limit',
  run: async ({ quick }) => [...(await threadRows(quick)), ...(await servedRows(quick))],
}

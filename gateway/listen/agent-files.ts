/**
 * `/agent/…`: the agent and the script that installs it, for machines that are nobody yet. Open to everybody, as what
 * is in it is no secret; so it is bounded in how many are served at once, of all and of one network, and in how slowly
 * and how long one may take it.
 */
import { open } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { systemClock, type Clock } from '#tunnel'
import type { AgentBuild } from '../devices/onboarding.ts'
import { plainAddress } from '../facts.ts'
import { ownerOf } from './admission.ts'

export interface AgentFilesOptions {
  readonly build: Pick<AgentBuild, 'files' | 'script'>
  readonly report: (error: unknown, what: string) => void
  /** Monotonic time; tests give their own. */
  readonly clock?: Pick<Clock, 'after'>
}

/** An executable is 117 MB; whoever comes on top of so many is told to come again. */
const AT_ONCE = 16
/** Of one network: a plant behind one address takes turns, and nobody alone keeps the others out. */
const AT_ONCE_EACH = 4
const RETRY_AFTER_S = 10
/** 117 MB at 1 Mbit/s. */
const LONGEST_MS = 1_000_000
/** In each such time at least so much is taken, or what is left: 128 kbit/s. */
const PACE_MS = 30_000
const PACE_BYTES = 480_000

const NOTHING =
  'this gateway has no agent to install: have `npm run build:agent` run beside it, or enrol by hand'

/** Answers what is below `/agent/`; what breaks on the way is reported and ends the connection. */
export function agentFiles({ build, report, clock = systemClock }: AgentFilesOptions) {
  const places = new Places()
  return (request: IncomingMessage, response: ServerResponse): void => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD')
      say(response, 405, 'use GET or HEAD')
      return
    }
    answer({ build, places, clock }, request, response).catch((error: unknown) => {
      // Whoever goes away in the middle, or is too slow, is not this gateway's failure.
      if (!response.destroyed) report(error, 'a file of the agent was not served')
      response.destroy()
    })
  }
}

/** Who is being served, by network. */
class Places {
  #taken = 0
  readonly #each = new Map<string, number>()

  /** Gives what gives the place back; undefined where there is none. */
  take(network: string): (() => void) | undefined {
    const has = this.#each.get(network) ?? 0
    if (this.#taken >= AT_ONCE || has >= AT_ONCE_EACH) return undefined
    this.#taken++
    this.#each.set(network, has + 1)
    return () => {
      this.#taken--
      const left = (this.#each.get(network) ?? 1) - 1
      if (left === 0) this.#each.delete(network)
      else this.#each.set(network, left)
    }
  }
}

interface Serving {
  readonly build: AgentFilesOptions['build']
  readonly places: Places
  readonly clock: Pick<Clock, 'after'>
}

async function answer(
  { build, places, clock }: Serving,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const name = /^\/agent\/([\w.-]{1,64})(?:\?|$)/.exec(request.url ?? '')?.[1]
  const head = request.method === 'HEAD'
  // Small, and what a line begins with: no place is needed for it.
  if (name === 'install') {
    const script = await build.script()
    if (script === undefined) say(response, 404, NOTHING)
    else send(response, 200, 'text/x-shellscript; charset=utf-8', head ? undefined : script, script)
    return
  }
  const found = (await build.files()).find((file) => file.name === name)
  if (found === undefined) {
    say(response, 404, name?.startsWith('sallyport-agent') === true ? NOTHING : 'no such file')
    return
  }
  const leave = places.take(ownerOf(plainAddress(request.socket.remoteAddress ?? '')))
  if (leave === undefined) {
    response.setHeader('retry-after', String(RETRY_AFTER_S))
    say(response, 503, 'other machines are being served; come again')
    return
  }
  try {
    await serve(found.path, response, head, clock)
  } finally {
    leave()
  }
}

async function serve(
  path: string,
  response: ServerResponse,
  head: boolean,
  clock: Pick<Clock, 'after'>,
): Promise<void> {
  const file = await open(path)
  try {
    const { size } = await file.stat()
    response.writeHead(200, headers('application/octet-stream', size))
    if (head || size === 0) {
      response.end()
      return
    }
    // To `end`: a file that grows while it is read would be longer than was said.
    const stream = file.createReadStream({ end: size - 1 })
    const late = new AbortController()
    const stop = pace(clock, size, () => stream.bytesRead, late)
    const signal = AbortSignal.any([late.signal, AbortSignal.timeout(LONGEST_MS)])
    try {
      await pipeline(stream, response, { signal })
    } finally {
      stop()
    }
  } finally {
    await file.close()
  }
}

/** Aborts `late` when too little of `size` was taken in a time. Gives what ends the looking. */
function pace(
  clock: Pick<Clock, 'after'>,
  size: number,
  taken: () => number,
  late: AbortController,
): () => void {
  let before = 0
  const look = () => {
    const now = taken()
    const left = size - before
    // Of nothing left to read, what was read is still to be taken: that is little, and has had its time.
    if (left === 0 || now - before < Math.min(PACE_BYTES, left)) late.abort()
    else {
      before = now
      cancel = clock.after(PACE_MS, look)
    }
  }
  let cancel = clock.after(PACE_MS, look)
  return () => cancel()
}

function headers(type: string, length: number) {
  return {
    'content-type': type,
    'content-length': length,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  }
}

function send(
  response: ServerResponse,
  status: number,
  type: string,
  body: string | undefined,
  whole: string,
): void {
  response.writeHead(status, headers(type, Buffer.byteLength(whole)))
  response.end(body)
}

function say(response: ServerResponse, status: number, sentence: string): void {
  send(response, status, 'text/plain; charset=utf-8', `${sentence}\n`, `${sentence}\n`)
}

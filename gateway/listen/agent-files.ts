/**
 * `/agent/…`: the agent and the script that installs it, for machines that are nobody yet. Open to everybody, as what
 * is in it is no secret; so it is bounded in how many are served at once, and in how long one may take.
 */
import { open } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import type { AgentBuild } from '../devices/onboarding.ts'

export interface AgentFilesOptions {
  readonly build: Pick<AgentBuild, 'files' | 'script'>
  readonly report: (error: unknown, what: string) => void
}

/** An executable is 117 MB; whoever comes on top of so many is told to come again. */
const AT_ONCE = 16
const RETRY_AFTER_S = 10
/** 117 MB at 1 Mbit/s. */
const LONGEST_MS = 1_000_000

const NOTHING =
  'this gateway has no agent to install: have `npm run build:agent` run beside it, or enrol by hand'

/** Answers what is below `/agent/`; what breaks on the way is reported and ends the connection. */
export function agentFiles({ build, report }: AgentFilesOptions) {
  let serving = 0
  return (request: IncomingMessage, response: ServerResponse): void => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD')
      say(response, 405, 'use GET or HEAD')
      return
    }
    if (serving >= AT_ONCE) {
      response.setHeader('retry-after', String(RETRY_AFTER_S))
      say(response, 503, `${AT_ONCE} machines are being served; come again`)
      return
    }
    serving++
    answer(build, request, response)
      .catch((error: unknown) => {
        // Whoever goes away in the middle is not this gateway's failure.
        if (!response.destroyed) report(error, 'a file of the agent was not served')
        response.destroy()
      })
      .finally(() => serving--)
  }
}

async function answer(
  build: AgentFilesOptions['build'],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const name = /^\/agent\/([\w.-]{1,64})(?:\?|$)/.exec(request.url ?? '')?.[1]
  const head = request.method === 'HEAD'
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
  const file = await open(found.path)
  try {
    const { size } = await file.stat()
    response.writeHead(200, headers('application/octet-stream', size))
    if (head || size === 0) response.end()
    else {
      const signal = AbortSignal.timeout(LONGEST_MS)
      // To `end`: a file that grows while it is read would be longer than was said.
      await pipeline(file.createReadStream({ end: size - 1 }), response, {
        signal,
      })
    }
  } finally {
    await file.close()
  }
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

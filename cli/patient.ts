/**
 * A call that was refused for coming too soon, and so has done nothing, is made again when the gateway says. A write
 * whose answer was lost on the way is sent again under its key, so that it is done once.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { RequestInit, Response } from 'undici'

/** Longer than this nobody watches a command that says nothing. */
const LONGEST_S = 30
const MOST_TIMES = 5

type Fetch = (target: string | URL, init?: RequestInit) => Promise<Response>

/** Connections that were there and broke; one that was refused has carried nothing. */
const BROKEN = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'])

function isBroken(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause)
    if ('code' in cause && typeof cause.code === 'string' && BROKEN.has(cause.code)) return true
  return false
}

function isKeyed({ headers }: RequestInit): boolean {
  return headers !== undefined && 'idempotency-key' in headers
}

/** Seconds after which the same call would be taken; undefined: waiting is no help. */
function waits({ status, headers }: Response): number | undefined {
  const after = headers.get('retry-after')
  if ((status !== 429 && status !== 409) || after === null || !/^\d{1,4}$/.test(after))
    return undefined
  const seconds = Number(after)
  return seconds > LONGEST_S ? undefined : seconds
}

/**
 * `pause` takes milliseconds. Gives the last answer where it is refused five times, or for longer than 30 s; throws as
 * `fetch` where a write with a key is lost three times, or anything else once.
 */
export function patient(fetch: Fetch, pause: (ms: number) => Promise<unknown> = sleep): Fetch {
  return async (target, init = {}) => {
    let lost: Error | undefined
    for (let again = 0, losses = 0; ; again++) {
      try {
        const response = await fetch(target, init)
        const seconds = waits(response)
        if (seconds === undefined || again === MOST_TIMES) return response
        await response.body?.cancel()
        await pause(seconds * 1000)
      } catch (error) {
        // What became of the one that was lost is the better answer than that nobody is there now.
        if (error instanceof Error && isBroken(error) && isKeyed(init)) lost ??= error
        if (lost === undefined || ++losses === 3) throw lost ?? error
        await pause(losses * 1000)
      }
    }
  }
}

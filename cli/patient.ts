/** A call that was refused for coming too soon, and so has done nothing, is made again when the gateway says. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { RequestInit, Response } from 'undici'

/** Longer than this nobody watches a command that says nothing. */
const LONGEST_S = 30
const MOST_TIMES = 5

type Fetch = (target: string | URL, init?: RequestInit) => Promise<Response>

/** `pause` takes milliseconds. Gives the last answer where it is refused five times, or for longer than 30 s. */
export function patient(fetch: Fetch, pause: (ms: number) => Promise<unknown> = sleep): Fetch {
  return async (target, init) => {
    for (let again = 0; ; again++) {
      const response = await fetch(target, init)
      const after = response.headers.get('retry-after')
      const seconds = after !== null && /^\d{1,4}$/.test(after) ? Number(after) : Infinity
      if (response.status !== 429 || seconds > LONGEST_S || again === MOST_TIMES) return response
      await response.body?.cancel()
      await pause(seconds * 1000)
    }
  }
}

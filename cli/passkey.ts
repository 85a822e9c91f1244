/** What is answered in a browser, from a terminal: a link, and patience until it was. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Ceremony, type Api } from './client.ts'
import type { GlobalOptions } from './commands/options.ts'
import { CliError } from './exit.ts'
import { note, say } from './print.ts'

const LOOK_MS = 1000

/**
 * Asks for a question by POST of `body` to `path`, prints its link, and looks every second with `answered` until that
 * gives something. Throws CliError: what the gateway says, `passkey.unanswered` after the question's time.
 */
export async function byPasskey<T>(
  api: Api,
  options: GlobalOptions,
  path: string,
  body: object,
  answered: () => Promise<T | undefined>,
): Promise<T> {
  return byLink(options, await api.call(Ceremony, 'POST', path, body), NO_PASSKEY, answered)
}

const NO_PASSKEY = { what: 'no passkey answered in time', code: 'passkey.unanswered' }

/**
 * Prints the link and looks every second with `answered` until that gives something. Throws CliError `late` after the
 * link's time, and what `answered` throws.
 */
export async function byLink<T>(
  options: GlobalOptions,
  { url, expires_at: until }: { readonly url: string; readonly expires_at: number },
  late: { readonly what: string; readonly code: string },
  answered: () => Promise<T | undefined>,
): Promise<T> {
  if (options.json) note(JSON.stringify({ open: url, expires_at: until }))
  else {
    say(`open    ${url}`)
    note('waiting for at most 5 minutes; Ctrl-C to stop')
  }
  while (Date.now() / 1000 < until) {
    await sleep(LOOK_MS)
    const found = await answered()
    if (found !== undefined) return found
  }
  throw new CliError(late.what, {
    code: late.code,
    exit: 'failed',
    next: 'run the command again, and open the link within five minutes',
  })
}

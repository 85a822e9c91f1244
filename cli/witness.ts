/**
 * Whoever uses the command line is a witness of the gateway's log: before the first call of a command, at most every ten
 * minutes, the gateway shows its head, and one that does not go on from the head kept here ends the command.
 */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Accused, ShownHead } from '#api'
import type { HeadVerdict } from '#audit'
import type { HeadKeeper } from '#heads'
import type { Api } from './client.ts'
import { CliError } from './exit.ts'
import { note } from './print.ts'

const AGAIN_MS = 600_000
/** So long without a look that succeeded, though a head is held, and the person is told. */
const SILENT_MS = 3_600_000
/** In a profile's folder, and in an agent's data directory. */
const WITNESS_FOLDER = 'witness'

/** The heads kept in `directory`, a profile's folder or an agent's. */
export async function openKeeper(directory: string): Promise<HeadKeeper> {
  const room = await import('#heads')
  return new room.HeadKeeper(join(directory, WITNESS_FOLDER), () => Date.now())
}

/** The same API; its first call is made once the log has been looked at. Calls may reject with `log.conflict`. */
export function witnessing(api: Api, directory: string): Api {
  let looked: Promise<unknown> | undefined
  const first = (): Promise<unknown> => (looked ??= lookIfDue(api, directory))
  return {
    ...api,
    call: async (...args) => {
      await first()
      return await api.call(...args)
    },
    send: async (...args) => {
      await first()
      return await api.send(...args)
    },
    fetch: async (...args) => {
      await first()
      return await api.fetch(...args)
    },
  }
}

async function lookIfDue(api: Api, directory: string): Promise<void> {
  if (!isDue(join(directory, WITNESS_FOLDER), Date.now())) return
  const verdict = await look(api, await openKeeper(directory))
  const last = lastLook(join(directory, WITNESS_FOLDER))
  const age = last === undefined ? 0 : Date.now() - last
  if (verdict === null && age >= SILENT_MS)
    note(
      `the gateway has not shown its log for ${Math.floor(age / 60_000)} minutes, so nobody here sees whether it was rewritten; if this stays so, tell your auditor`,
    )
}

/** By the times of the files alone, so that a command that need not look loads nothing for it. */
function isDue(folder: string, now: number): boolean {
  // A clock that was put back makes a look due, never one less.
  return !looks(folder).some((at) => at <= now && now - at < AGAIN_MS)
}

/** When each head kept there was last shown, epoch milliseconds. */
function looks(folder: string): number[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .filter((name) => /^[0-9a-f]{16}\.json$/.test(name))
    .map((name) => statSync(join(folder, name)).mtimeMs)
}

/** Undefined where no head is held yet: then nothing can have been taken back. */
function lastLook(folder: string): number | undefined {
  const all = looks(folder)
  return all.length === 0 ? undefined : Math.max(...all)
}

/** Looks at the gateway's log now. Rejects with CliError `log.conflict`; a gateway that fails otherwise proves nothing. */
export async function look(api: Api, keeper: HeadKeeper): Promise<HeadVerdict | null> {
  let shown: ShownHead
  try {
    shown = await ask(api, keeper)
  } catch (error) {
    if (!(error instanceof CliError) || error.code !== 'route.unknown') return null
    const hidden = keeper.hidden()
    if (hidden === null) return null
    throw hidden.kind === 'conflict' ? convicted(hidden) : error
  }
  const held = reading(() => keeper.held(shown.origin))
  const verdict = reading(() => keeper.see(shown))
  if (verdict.kind !== 'conflict') return verdict
  const against = verdict.held ?? held?.note
  if (against !== undefined)
    await api
      .call(Accused, 'POST', '/audit/head', { note: against })
      // Whether the gateway hears it changes nothing here.
      .catch(() => undefined)
  throw convicted(verdict, shown.origin)
}

/** Asks from the head last kept; the answer names the log, and another log is asked from its own head. */
async function ask(api: Api, keeper: HeadKeeper): Promise<ShownHead> {
  const newest = keeper.all().toSorted((a, b) => b.at - a.at)[0]
  const from = newest?.size ?? 0
  const shown = await api.call(ShownHead, 'GET', `/audit/head?from=${from}`)
  const kept = keeper.held(shown.origin)
  const before = kept === null ? keeper.before(shown.origin) : null
  if (before !== null)
    return await api.call(
      ShownHead,
      'GET',
      `/audit/head?from=${before.size}&held=${encodeURIComponent(before.origin)}`,
    )
  const held = kept?.size ?? 0
  if (held === from) return shown
  return await api.call(ShownHead, 'GET', `/audit/head?from=${held}`)
}

type Conflict = Extract<HeadVerdict, { kind: 'conflict' }>

/**
 * The log to let go of, so that what is shown is believed: that of the head it speaks against, which after a rotation
 * is another epoch than the one shown; for one that the keys held or named did not sign, that one. Undefined: none is.
 */
function against({ code, held }: Conflict, origin: string | undefined): string | undefined {
  return code === 'head.signature' ? origin : held?.split('\n', 1)[0]
}

function convicted(verdict: Conflict, origin?: string): CliError {
  const { code, message } = verdict
  if (code === 'head.other')
    return new CliError('ALARM: the gateway shows another log than before', {
      code: 'log.conflict',
      exit: 'failed',
      why: `${message} (${code})`,
      next: `ask your administrator why; if it is meant to be so, as with another gateway: sallyport audit witness accept --origin ${origin} --key FILE, with its log-keys.txt`,
    })
  const log = against(verdict, origin)
  const forget =
    log === undefined
      ? ''
      : `; if it was restored with everybody’s knowledge: sallyport audit witness forget --origin ${log}`
  return new CliError('ALARM: the gateway’s log is not the one it showed before', {
    code: 'log.conflict',
    exit: 'failed',
    why: `${message} (${code})`,
    next: `tell your auditor, who compares: sallyport audit witness export${forget}`,
  })
}

/** What is kept here must be readable: a damaged file is said, not taken for nothing. */
function reading<T>(act: () => T): T {
  try {
    return act()
  } catch (cause) {
    throw new CliError(
      'the heads of the gateway’s log that are kept here cannot be used',
      {
        code: 'log.kept',
        exit: 'usage',
        why: cause instanceof Error ? cause.message : String(cause),
        next: 'move that file elsewhere, keep it, and repeat this',
      },
      { cause },
    )
  }
}

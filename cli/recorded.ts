/** Where a recording comes from: the gateway, or a copy of its directory; and who opens it. */
import { readFileSync } from 'node:fs'
import type { Identity } from '#audit'
import type { Recording } from '#api'
import type { GlobalOptions } from './commands/options.ts'
import { CliError, usage } from './exit.ts'
import { readText } from './input.ts'
import { note } from './print.ts'

const SESSION = /^s_[0-9a-z]{26}$/

export interface Source {
  readonly recording: Recording
  /** The sealed file of one part. */
  part(track: number, part: number): Promise<Uint8Array>
  /** Tells the gateway what was looked at; a copy has nobody to tell. */
  viewed(how: 'replay' | 'export', ranges: readonly Range[]): Promise<void>
}

export interface Range {
  readonly track: number
  readonly from_ms: number
  readonly to_ms: number
}

/** The recording of one session. `from` is a copy of the gateway's `recordings` directory. */
export async function openRecording(
  options: GlobalOptions,
  session: string,
  from: string | undefined,
): Promise<Source> {
  if (!SESSION.test(session))
    throw usage(
      `${JSON.stringify(session)} is not the id of a session`,
      'ids look like s_… and stand in `sallyport recording list`',
    )
  return from === undefined ? await atGateway(options, session) : await inCopy(from, session)
}

async function atGateway(options: GlobalOptions, session: string): Promise<Source> {
  const { openApi, Recording: schema, RecordingView } = await import('./client.ts')
  const api = await openApi(options)
  return {
    recording: await api.call(schema, 'GET', `/recordings/${session}`),
    part: (track, part) => api.fetch(`/recordings/${session}/parts/${track}/${part}`),
    async viewed(how, ranges) {
      await api.call(RecordingView, 'POST', `/recordings/${session}/views`, { how, ranges })
    },
  }
}

async function inCopy(directory: string, session: string): Promise<Source> {
  const { fileOf, partPath, readRecording } = await import('#audit')
  const stored = await readRecording(directory, session)
  if (stored === undefined)
    throw new CliError(`${directory} holds no recording of ${session}`, {
      code: 'recording.unknown',
      exit: 'failed',
      next: 'give the directory `recordings` of the gateway’s data, or a copy of it',
    })
  const { facts, parts, end = null } = stored
  return {
    recording: {
      ...facts,
      recipients: [...facts.recipients],
      parts: [...parts],
      bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
      end,
    },
    part: (track, part) => {
      const path = partPath(directory, session, fileOf({ track, part }))
      try {
        return Promise.resolve(readFileSync(path))
      } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause)
        const facts = { code: 'recording.missing', exit: 'failed', why } as const
        return Promise.reject(
          new CliError(`part ${part} of track ${track} is not there`, facts, { cause }),
        )
      }
    },
    viewed: () => Promise.resolve(),
  }
}

/** Secret keys from a file of `sallyport audit auditor keygen` or age-keygen. Throws usage. */
export async function readIdentities(path: string): Promise<Identity[]> {
  const { AuditError, parseIdentities } = await import('#audit')
  try {
    return parseIdentities(readText(path, 'secret key'))
  } catch (cause) {
    if (!(cause instanceof AuditError)) throw cause
    throw usage(`${path}: ${cause.message}`, 'it holds a line AGE-SECRET-KEY-1…', { cause })
  }
}

/** The tracks there are; throws where there is none, or several and none is chosen. */
export function trackOf({ recording }: Source, chosen: number | undefined): number {
  const tracks = [...new Set(recording.parts.map(({ track }) => track))]
  const [only] = tracks
  if (only === undefined)
    throw new CliError('the recording is empty', { code: 'recording.empty', exit: 'failed' })
  if (chosen !== undefined && tracks.includes(chosen)) return chosen
  if (chosen === undefined && tracks.length === 1) return only
  throw usage(
    chosen === undefined ? 'the session had several connections' : `there is no track ${chosen}`,
    `choose one with --track: ${tracks.join(', ')}`,
  )
}

const VERIFY = 'sallyport recording verify, with the log, names every part that differs'

/**
 * Fetches, checks and opens one track. Throws CliError `recording.sealed`, `recording.identity`. Which parts there are
 * is what their list says, and a list without a log proves nothing: what it leaves open is told on stderr.
 */
export async function openTrack(
  source: Source,
  track: number,
  identities: readonly Identity[],
): Promise<Uint8Array> {
  const { AuditError, fileOf, readTrack, rootOf } = await import('#audit')
  const { recording } = source
  const { end, parts } = recording
  const own = parts.filter((part) => part.track === track)
  if (end === null) note('the recording has no end: it goes on, or what is missing was taken away')
  else if (end.parts !== parts.length || end.root !== rootOf(parts))
    throw new CliError('the recording is not as it was made', {
      code: 'recording.sealed',
      exit: 'failed',
      why: `${parts.length} parts are listed, and its end speaks of ${end.parts} with another root`,
      next: VERIFY,
    })
  for (const part of own)
    if (part.torn)
      note(
        `${fileOf(part)}: its end is missing. The list says that the gateway died writing it; only the log proves that: ${VERIFY}`,
      )
  const sealed = []
  for (const part of own) sealed.push({ ...part, sealed: await source.part(track, part.part) })
  try {
    return readTrack(recording.session, sealed, identities)
  } catch (cause) {
    if (!(cause instanceof AuditError)) throw cause
    const foreign = cause.code === 'recording.identity'
    throw new CliError(
      foreign ? 'this key does not open the recording' : 'the recording is not as it was made',
      {
        code: cause.code,
        exit: 'failed',
        why: cause.message,
        next: foreign ? `it was sealed to ${recording.recipients.join(', ')}` : VERIFY,
      },
      { cause },
    )
  }
}

/** What the person who opened a session is told of its recording; undefined where there is none. */
export function noticeOf(format: string | null | undefined): string | undefined {
  if (format === null || format === undefined) return undefined
  return format === 'flow'
    ? 'how much passes, second by second, is recorded; what passes is not'
    : `this session is recorded for auditors (${format})`
}

/** `sallyport recording`: what sessions left behind, opened by auditors alone, each look an event. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate, setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Recording } from '#api'
import type { Cast, Fault, Logged } from '#audit'
import { CliError, Exited, usage } from '../exit.ts'
import { readInteger } from '../input.ts'
import { readKeys } from '../keys.ts'
import { facts, instant, layOut, note, plain, say, show, tell } from '../print.ts'
import { openRecording, openTrack, readIdentities, trackOf, type Source } from '../recorded.ts'
import { RESTORE, Screen } from '../screen.ts'
import { collect, globalOptions } from './options.ts'

interface OpenFlags {
  readonly identity: string
  readonly from?: string
  readonly track?: string
}
interface ReplayFlags extends OpenFlags {
  readonly speed: string
  readonly idle?: string
}
interface ExportFlags extends OpenFlags {
  readonly out: string
}
interface VerifyFlags {
  readonly from: string
  readonly log: string
  readonly key: string[]
}

export function registerRecording(program: Command): void {
  const recording = program
    .command('recording')
    .description('what sessions left behind: listing, replaying, proving')
  recording
    .command('list')
    .description('the newest recordings')
    .option('--limit <count>', 'how many at most', '50')
    .action(list)
  recording
    .command('show <session>')
    .description('one of them, part by part')
    .option('--from <dir>', 'a copy of the gateway’s recordings, instead of the gateway')
    .action(showOne)
  opening(
    recording
      .command('replay <session>')
      .description('a terminal as it was seen; a web session as a list'),
  )
    .option('--speed <times>', 'how many times as fast, 0.1 to 1000', '1')
    .option('--idle <seconds>', 'the longest pause that is played')
    .action(replay)
  opening(
    recording
      .command('export <session>')
      .description('opened, as a file for other programs: .cast, .pcapng, .ndjson'),
  )
    .requiredOption('--out <file>', 'where it goes; it is not sealed any more')
    .action(exportOne)
  recording
    .command('verify [session]')
    .description(
      'prove recordings against a log; needs no key of an auditor, no gateway, no network',
    )
    .requiredOption('--from <dir>', 'the recordings, or a copy of them')
    .requiredOption('--log <dir>', 'the log, or a copy of it')
    .requiredOption('--key <file|vkey>', 'a verifier key of the log; may be repeated', collect)
    .action(verify)
}

function opening(command: Command): Command {
  return command
    .requiredOption('--identity <file>', 'the auditor’s secret key (AGE-SECRET-KEY-1…)')
    .option('--from <dir>', 'a copy of the gateway’s recordings, instead of the gateway')
    .option('--track <number>', 'which connection, where the session had several')
}

async function list(flags: { readonly limit: string }, command: Command): Promise<void> {
  const options = globalOptions(command)
  const limit = readInteger(flags.limit, 'limit', 1, 10_000)
  const { all, openApi, Recording: item } = await import('../client.ts')
  const api = await openApi(options)
  const newest = await all(api, item, 'GET', '/recordings', limit)
  const items = newest.toSorted((a, b) => a.began - b.began)
  show(options, items, {
    head: ['session', 'began', 'where', 'format', 'bytes', 'parts', 'state'],
    rows: items.map((one) => [
      one.session,
      instant(Math.floor(one.began / 1000)),
      `${one.device}/${one.process}`,
      one.format,
      one.bytes,
      one.end?.parts ?? null,
      one.end?.reason ?? 'going on',
    ]),
    empty: 'nothing has been recorded',
  })
}

async function showOne(
  session: string,
  flags: { readonly from?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { recording } = await openRecording(options, session, flags.from)
  const { parts, end, recipients } = recording
  tell(options, recording, [
    ...facts([
      ['session', recording.session],
      ['where', `${recording.device}/${recording.process}`],
      ['grant', recording.grant],
      ['format', recording.format],
      ['began', instant(Math.floor(recording.began / 1000))],
      ['ended', end === null ? 'it goes on' : end.reason],
      ['root', end?.root],
      ...recipients.map((one, at) => [at === 0 ? 'opened by' : '', one] as const),
    ]),
    layOut({
      head: ['track', 'part', 'bytes', 'from', 'event', 'sha256', ''],
      rows: parts.map((part) => [
        part.track,
        part.part,
        part.bytes,
        new Date(part.t0).toISOString(),
        part.idx,
        part.sha256,
        part.torn ? 'its end is missing' : ' ',
      ]),
      empty: 'no part is finished yet',
    }),
  ])
}

interface OpenedTrack {
  readonly source: Source
  readonly track: number
  readonly content: Uint8Array
}

async function openOne(session: string, flags: OpenFlags, command: Command): Promise<OpenedTrack> {
  const identities = await readIdentities(flags.identity)
  const source = await openRecording(globalOptions(command), session, flags.from)
  const chosen = flags.track === undefined ? undefined : readInteger(flags.track, 'track', 1, 9_999)
  const track = trackOf(source, chosen)
  return { source, track, content: await openTrack(source, track, identities) }
}

async function exportOne(session: string, flags: ExportFlags, command: Command): Promise<void> {
  const { source, track, content } = await openOne(session, flags, command)
  const { recording } = source
  const length = lengthOf(recording, track)
  await source.viewed('export', [{ track, from_ms: 0, to_ms: length }])
  try {
    writeFileSync(flags.out, content, { mode: 0o600, flag: 'wx' })
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw usage(`${flags.out} cannot be written: ${why}`, 'give the name of a new file', { cause })
  }
  const format = formatOf(recording, content)
  tell(globalOptions(command), { file: flags.out, format, bytes: content.length }, [
    `${flags.out}: ${content.length} bytes of ${format}, not sealed any more`,
  ])
}

/** Beside the requests of a web process there may be the packets of a native connection to it. */
function formatOf({ format }: Recording, content: Uint8Array): Recording['format'] {
  return content[0] === 0x0a && content[1] === 0x0d ? 'pcapng' : format
}

/** Milliseconds from the first to the last thing in a track. */
function lengthOf({ parts }: Recording, track: number): number {
  const own = parts.filter((part) => part.track === track)
  return Math.max(0, (own.at(-1)?.t1 ?? 0) - (own[0]?.t0 ?? 0))
}

async function replay(session: string, flags: ReplayFlags, command: Command): Promise<void> {
  const speed = Number(flags.speed)
  if (!(speed >= 0.1 && speed <= 1_000))
    throw usage(`--speed ${flags.speed} is not a number from 0.1 to 1000`)
  const idle = flags.idle === undefined ? Number.POSITIVE_INFINITY : Number(flags.idle) * 1000
  if (!(idle >= 0)) throw usage(`--idle ${flags.idle ?? ''} is not a number of seconds`)
  const { source, track, content } = await openOne(session, flags, command)
  const format = formatOf(source.recording, content)
  const text = new TextDecoder().decode(content)
  if (format === 'weblog') {
    await source.viewed('replay', [{ track, from_ms: 0, to_ms: lengthOf(source.recording, track) }])
    say(webTable(text))
    return
  }
  if (format !== 'asciicast')
    throw usage(
      `a recording of format ${format} has no picture`,
      `sallyport recording export ${session} --identity FILE --out FILE, and open it in Wireshark`,
    )
  const { readCast } = await import('#audit')
  const cast = readCast(text)
  if (cast === undefined)
    throw new CliError('the recording is no asciicast', {
      code: 'recording.format',
      exit: 'failed',
    })
  let seen = 0
  try {
    seen = await play(cast, speed, idle)
  } finally {
    await source.viewed('replay', [{ track, from_ms: 0, to_ms: seen }])
  }
}

/** Plays to the end, or to Ctrl-C; gives how far, in milliseconds of the recording. */
async function play(cast: Cast, speed: number, idle: number): Promise<number> {
  const { columns, rows, isTTY } = process.stdout
  if (isTTY && (columns < cast.cols || rows < cast.rows))
    note(`the terminal that was recorded had ${cast.cols} columns and ${cast.rows} rows`)
  const stopped = new AbortController()
  const stop = (): void => stopped.abort()
  process.once('SIGINT', stop)
  const screen = new Screen()
  let at = 0
  try {
    for (const event of cast.events) {
      const pause = Math.min(event.at - at, idle) / speed
      // A recording that is played fast must still be one that can be stopped.
      const { signal } = stopped
      if (pause > 0) await setTimeout(pause, undefined, { signal })
      else await setImmediate(undefined, { signal })
      at = event.at
      if (event.code === 'o') process.stdout.write(screen.show(event.text))
    }
  } catch (error) {
    if (!stopped.signal.aborted) throw error
  } finally {
    process.off('SIGINT', stop)
    if (isTTY) process.stdout.write(RESTORE)
  }
  return at
}

interface WebLine {
  readonly time?: number
  readonly duration?: number
  readonly http_request?: {
    readonly http_method?: string
    readonly url?: { readonly path?: string; readonly query_string?: string }
  }
  readonly http_response?: { readonly code?: number }
  readonly status_code?: string
  readonly traffic?: { readonly bytes_in?: number; readonly bytes_out?: number }
}

function webTable(text: string): string {
  const lines = text.split('\n').filter((line) => line !== '')
  return layOut({
    head: ['time', 'method', 'path', 'answer', 'ms', 'in', 'out'],
    rows: lines.map((line) => {
      const {
        time,
        duration,
        http_request: asked,
        http_response,
        status_code,
        traffic,
      } = JSON.parse(line) as WebLine
      const query = asked?.url?.query_string
      return [
        time === undefined ? null : new Date(time).toISOString(),
        asked?.http_method,
        `${asked?.url?.path ?? ''}${query === undefined ? '' : `?${query}`}`,
        http_response?.code ?? status_code,
        duration,
        traffic?.bytes_in,
        traffic?.bytes_out,
      ]
    }),
    empty: 'nothing was asked for',
  })
}

async function verify(
  session: string | undefined,
  flags: VerifyFlags,
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { compare, findParts, listRecordings, recordingsOver } = await import('#audit')
  // What comes after the checkpoint anybody could have written.
  const logged = recordingsOver(await provenEpochs(flags))
  const onDisk = (await listRecordings(flags.from)).map(({ facts: { session: id } }) => id)
  const ids = session === undefined ? [...new Set([...logged.keys(), ...onDisk])] : [session]
  const found: Checked[] = []
  for (const id of ids) {
    const told: Logged = logged.get(id) ?? { parts: [], end: undefined }
    const faults = compare(told, await findParts(flags.from, id))
    const { parts, goesOn = false } = told
    found.push({ session: id, parts: parts.length, torn: tornOf(told), goes_on: goesOn, faults })
  }
  tell(options, found, found.length === 0 ? ['nothing was recorded'] : found.flatMap(checkedLines))
  if (found.some(({ faults }) => faults.length > 0)) throw new Exited('failed')
}

interface ProvenEpoch {
  readonly directory: string
  readonly origin: string
  readonly size: number
}

/** The log, or all epochs in a node's folder, up to what each has signed. Throws CliError `log.violated`, `log.not-provable`. */
async function provenEpochs({ log, key }: VerifyFlags): Promise<ProvenEpoch[]> {
  const { epochsIn, verifyEpochs, verifyLog } = await import('#audit')
  const asked = { directory: log, verifierKeys: key.flatMap(readKeys), held: [] }
  const whole = !existsSync(join(log, 'checkpoint')) && epochsIn(log).length > 0
  const verdict = whole ? await verifyEpochs(asked) : await verifyLog(asked)
  if (verdict.outcome !== 'proven')
    throw new CliError(
      verdict.outcome === 'violated' ? 'the log is not what was signed' : 'the log is not provable',
      {
        code: `log.${verdict.outcome}`,
        exit: verdict.outcome === 'violated' ? 'failed' : 'usage',
        why: verdict.why ?? ('place' in verdict ? verdict.place?.what : undefined),
        next: `sallyport audit verify --log ${log} says more`,
      },
    )
  if (!('epochs' in verdict)) {
    const { origin, size } = verdict.checkpoint ?? { origin: '', size: 0 }
    return [{ directory: log, origin, size }]
  }
  return verdict.epochs.map(({ directory, origin, verdict: { checkpoint } }) => ({
    directory,
    origin,
    size: checkpoint?.size ?? 0,
  }))
}

interface Checked {
  readonly session: string
  readonly parts: number
  readonly torn: number
  readonly goes_on: boolean
  readonly faults: readonly Fault[]
}

function tornOf({ parts }: Logged): number {
  return parts.filter(({ torn }) => torn).length
}

function checkedLines({ session, parts, torn, goes_on, faults }: Checked): string[] {
  if (faults.length === 0 && goes_on)
    return [`goes on: ${session}, ${parts} parts are as logged; it is proven once it has an end`]
  const rest = torn > 0 ? `, ${torn} of them cut off when the gateway died` : ''
  if (faults.length === 0) return [`proven: ${session}, ${parts} parts${rest}`]
  return [
    `VIOLATED: ${session}`,
    ...faults.map(({ code, file, idx, what }) =>
      plain(`  ${code} ${file ?? '-'}${idx === null ? '' : `, event ${idx}`}: ${what}`),
    ),
  ]
}

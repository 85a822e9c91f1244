/** `sallyport connect`: a local port, or stdin and stdout, that is one process on one device, for as long as policy says. */
import { randomUUID } from 'node:crypto'
import { constants } from 'node:os'
import type { Command } from 'commander'
import type { OpenedSession, Session as SessionSchema, SessionUse } from '#api'
import type { Api } from '../client.ts'
import { CliError, Exited, Passed, usage } from '../exit.ts'
import type { Forward, News } from '../forward.ts'
import type { ProgramEnd, Reason } from '../reason.ts'
import { readListen, readProcess } from '../input.ts'
import type { LocalPort } from '../local-port.ts'
import { explain, note, plain, remaining, say } from '../print.ts'
import { noticeOf } from '../recorded.ts'
import { readSshHost, type Target } from '../ssh.ts'
import type { PersonTerminal } from '../terminal.ts'
import { globalOptions, type GlobalOptions } from './options.ts'

interface ConnectFlags {
  readonly listen?: string
  readonly stdio?: true
  readonly grant?: string
}

export function registerConnect(program: Command): void {
  program
    .command('connect <device/process>')
    .description(
      'open a session, and a local port for it or the program that it starts; ends when the session ends, or with Ctrl-C',
    )
    .option(
      '--listen <host:port>',
      'where your own tools connect, as 127.0.0.1:1502 or udp:127.0.0.1:1161; port 0 takes a free one',
    )
    .option('--stdio', 'one connection over stdin and stdout, as for the ProxyCommand of ssh')
    .option('--grant <id>', 'the grant to use, where several apply')
    .action(connect)
}

async function connect(called: string, flags: ConnectFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  if (flags.listen !== undefined && flags.stdio !== undefined)
    throw usage('--listen and --stdio do not go together', 'choose one of the two')
  const host = readSshHost(called, options.profile)
  const target = host ?? readProcess(called)
  const place = `${target.device}/${target.process}`
  const ssh = host !== undefined && flags.stdio === true
  const listen = flags.listen === undefined ? undefined : readListen(flags.listen)
  const { openApi } = await import('../client.ts')
  const api = await openApi(options)
  if (listen === undefined) return await use(api, { place, target, flags, options, ssh })
  // Before the session: a port that is taken must not use up a grant.
  const { holdPort } = await import('../local-port.ts')
  const local = await holdPort(listen)
  try {
    await use(api, { place, target, flags, options, ssh, local })
  } finally {
    local.close()
  }
}

interface ConnectAsk {
  readonly place: string
  readonly target: Target
  readonly flags: ConnectFlags
  readonly options: GlobalOptions
  /** It is ssh that asks: by a name that only ssh knows. */
  readonly ssh: boolean
  /** Where `--listen` says so. */
  readonly local?: LocalPort
}

/** Opens the session and uses it until it is over. */
async function use(api: Api, ask: ConnectAsk): Promise<void> {
  const { place, target, flags, options, local } = ask
  const [{ openSession, Session: record }, { openForward }] = await Promise.all([
    import('../client.ts'),
    import('../forward.ts'),
  ])
  const opened = await openSession(api, target, flags.grant, usesOf(ask)).catch(
    (error: unknown) => {
      throw misuse(error, ask)
    },
  )
  const kind = opened.kind === 'udp' || opened.kind === 'spawn' ? opened.kind : 'tcp'
  tellRecorded(opened, options, flags.stdio === undefined && kind !== 'spawn' ? say : note)
  const opening = openForward({
    gateway: {
      host: api.gateway.hostname.replace(/^\[|\]$/g, ''),
      port: Number(api.gateway.port || 443),
    },
    anchor: api.anchor,
    session: opened,
    kind,
    ...(local === undefined ? {} : { listen: local }),
    instance: randomUUID(),
    news: (news) => print(news, opened, options, local === undefined ? note : say),
  })
  const forward = await opening.catch(async (error: unknown) => {
    // A session that nobody can use is not left behind; why it cannot be used is what is told.
    await endSession(api, opened).catch(() => {})
    throw error
  })
  const watch = watchSession(api, record, opened, forward)
  try {
    if (local !== undefined) await untilEnded(forward, place)
    else if (kind === 'spawn') await runProgram(forward, place, flags.stdio === undefined)
    else await carryStandard(forward, place)
    await leave(forward, api, opened)
  } catch (error) {
    // A session that the gateway has not ended itself is not left behind, where it can be told.
    const over = error instanceof CliError && ['ended', 'unreachable'].includes(error.exit)
    if (!over) await leave(forward, api, opened)
    throw error
  } finally {
    clearInterval(watch)
  }
}

/** What can be done with the process as it was asked for: by the transports, too, that the port is held by. */
function usesOf({ local, flags, ssh }: ConnectAsk): readonly SessionUse[] {
  if (ssh) return ['ssh']
  if (local !== undefined) return local.transports
  return flags.stdio === undefined ? ['spawn'] : ['tcp', 'spawn']
}

/** What the process is the gateway knows: it opens nothing that could not be used as it was asked for. */
function misuse(error: unknown, { place, local, ssh }: ConnectAsk): unknown {
  if (!(error instanceof CliError) || error.code !== 'process.kind') return error
  const what = error.why ?? `${place} is not used like this`
  if (ssh) return notForSsh(error, place)
  const port = `sallyport connect ${place} --listen 127.0.0.1:0 takes a free port`
  if (what.includes('is a program'))
    return usage(`${what}: it has no port`, `sallyport connect ${place} runs it here`, {
      cause: error,
    })
  // It is reached by what was asked for, had the port been free.
  if (local?.failure !== undefined) return local.failure
  const wanted = local === undefined ? `${what}: one of --listen and --stdio is needed` : what
  return usage(wanted, port, { cause: error })
}

/** What it is instead says how it is used. */
function notForSsh(cause: CliError, place: string): CliError {
  const { code, why = '' } = cause
  const next = why.includes('is a program')
    ? `sallyport connect ${place} runs it here`
    : why.endsWith('http')
      ? `sallyport open ${place}`
      : `sallyport connect ${place} --listen 127.0.0.1:0, and its own tool there`
  return new CliError(`${place} is not used by ssh`, { code, exit: 'failed', why, next }, { cause })
}

/** Whoever works in a session that is recorded knows it before the first byte. */
function tellRecorded(
  { recording }: OpenedSession,
  { json }: GlobalOptions,
  out: (line: string) => void,
): void {
  const notice = noticeOf(recording)
  if (notice === undefined) return
  out(json ? JSON.stringify({ event: 'recorded', format: recording }) : notice)
}

/** Resolves at Ctrl-C; throws how the session ended. */
async function untilEnded(forward: Forward, place: string): Promise<void> {
  const reason = await Promise.race([forward.ended, firstInterrupt()])
  if (reason !== 'interrupted') throw ended(reason, place)
}

/** Runs a program on this terminal, or between these pipes; throws its exit code, as a shell would. */
async function runProgram(forward: Forward, place: string, interactive: boolean): Promise<void> {
  const { personTerminal } = await import('../terminal.ts')
  const left = Promise.withResolvers<'interrupted'>()
  const terminal = interactive ? personTerminal(() => left.resolve('interrupted')) : undefined
  try {
    const end = await carryStandard(forward, place, { terminal, left: left.promise })
    if (end === undefined) return
    const code = 'code' in end ? end.code : 128 + (signalNumber(end.signal) ?? 0)
    if (code !== 0) throw new Passed(code)
  } finally {
    terminal?.restore()
  }
}

function signalNumber(name: string): number | undefined {
  return Object.entries(constants.signals).find(([known]) => known === name)?.[1]
}

interface Person {
  readonly terminal: PersonTerminal | undefined
  /** The person wants to leave. */
  readonly left: Promise<'interrupted'>
}

/**
 * Resolves when the connection is done, with how the program ended where it was one; throws how the
 * session ended, or why the connection did.
 */
async function carryStandard(
  forward: Forward,
  place: string,
  person?: Person,
): Promise<ProgramEnd | undefined> {
  const { standardEnds } = await import('../stdio.ts')
  const ends = person?.terminal ?? standardEnds()
  try {
    const first = await Promise.race([
      forward.carry(ends, person?.terminal),
      forward.ended,
      firstInterrupt(),
      ...(person === undefined ? [] : [person.left]),
    ])
    if (first === 'interrupted') throw new Exited('interrupted')
    if (first.code === 'done') return 'program' in first ? first.program : undefined
    if (forward.announced() || lost.has(first.code)) throw ended(await forward.ended, place)
    const gone = first.code === 'client.gone'
    throw new CliError(gone ? 'nobody reads stdout any more' : 'the connection was cut', {
      code: gone ? 'stdout.closed' : first.code,
      exit: 'failed',
      why: first.message === '' ? undefined : first.message,
      next: first.next,
      id: first.id,
    })
  } finally {
    // Nothing that still waits on them keeps the program.
    ends.reader.destroy()
    ends.writer.destroy()
  }
}

/** A session can end while no connection is open that could be told: then the list of sessions says so. */
const WATCH_MS = 10_000

function watchSession(
  api: Api,
  schema: typeof SessionSchema,
  opened: OpenedSession,
  forward: Forward,
): NodeJS.Timeout {
  const look = async (): Promise<void> => {
    const session = await api.call(schema, 'GET', `/sessions/${opened.id}`)
    if (session.state !== 'open')
      forward.end({
        code: session.reason ?? 'session.ended',
        message: 'the gateway has ended the session',
      })
  }
  // A look that fails says nothing about the session; the tunnel itself tells when the gateway is gone.
  return setInterval(() => void look().catch(() => {}), WATCH_MS)
}

/** Resolves at the first Ctrl-C or request to end; a second one ends the process as usual. */
async function firstInterrupt(): Promise<'interrupted'> {
  const { promise, resolve } = Promise.withResolvers<'interrupted'>()
  // SIGHUP: a terminal that was closed, and ssh when it is done with its ProxyCommand.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => resolve('interrupted'))
  return promise
}

async function leave(forward: Forward, api: Api, opened: OpenedSession): Promise<void> {
  await forward.close()
  try {
    await endSession(api, opened)
  } catch (error) {
    // The tunnel is gone either way; the gateway ends the session when its time is over.
    note(`the gateway could not be told: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function endSession(api: Api, opened: OpenedSession): Promise<void> {
  const { Session } = await import('../client.ts')
  await api.call(Session, 'POST', `/sessions/${opened.id}/end`)
}

const lost = new Set(['peer.lost', 'peer.silent', 'carrier.failed'])

function ended(reason: Reason, place: string): CliError {
  const isLost = lost.has(reason.code)
  return new CliError(
    isLost ? `the connection to the gateway was lost` : `the session ended: ${place}`,
    {
      code: reason.code,
      exit: isLost ? 'unreachable' : 'ended',
      why: reason.message === '' ? undefined : reason.message,
      next:
        reason.next ??
        (isLost
          ? 'repeat the command; the grant is still yours'
          : 'sallyport grants shows what you still hold'),
      id: reason.id,
    },
  )
}

/** `out` takes what is a result; with `--stdio` stdout is the connection's, and everything goes to stderr. */
function print(
  news: News,
  opened: OpenedSession,
  options: GlobalOptions,
  out: (line: string) => void,
): void {
  if (options.json) {
    const more =
      news.event === 'listening'
        ? {
            session: opened.id,
            grant: opened.grant,
            remaining_ms: opened.remaining_ms,
            decision_id: opened.decision_id,
          }
        : {}
    out(JSON.stringify({ ...news, ...more }))
    return
  }
  sentences[news.event](news as never, opened)
}

type Sentences = {
  readonly [E in News['event']]: (news: Extract<News, { event: E }>, opened: OpenedSession) => void
}

const sentences: Sentences = {
  listening: ({ host, port }, opened) => {
    const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
    say(`listening on ${address} for ${opened.device}/${opened.process}`)
    say(`session ${opened.id}, ${remaining(opened.remaining_ms)} left; Ctrl-C to end`)
  },
  connected: ({ from }) => note(`${from} connected`),
  closed: ({ from, reason, sent, received }) =>
    note(`${from} closed (${plain(reason.code)}), ${sent} bytes sent, ${received} received`),
  extended: ({ remaining_ms }) => note(`the grant was extended: ${remaining(remaining_ms)} left`),
  paused: ({ message }) => note(plain(message)),
  resumed: () => note('the session goes on'),
  awaited: ({ message }) => note(message),
  countdown: ({ remaining_ms }) => note(`${remaining(remaining_ms)} left`),
  ending: ({ reason }) =>
    note(`the session is ending: ${plain(reason.message)} (${plain(reason.code)})`),
  refused: ({ from, reason }) =>
    note(
      explain(
        new CliError(`connection from ${from} refused`, {
          code: reason.code,
          exit: 'denied',
          why: reason.message,
          next: reason.next,
          id: reason.id,
        }),
        { json: false },
      ),
    ),
}

/** `sallyport sessions`, `session` and `cut`: who is inside right now, what they do, holding that and ending it. */
import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import type { SessionWatch } from '#api'
import { CliError, usage } from '../exit.ts'
import { facts, instant, plain, say, show, tell } from '../print.ts'
import { globalOptions } from './options.ts'

export function registerSession(program: Command): void {
  program.command('sessions').description('sessions, open ones first').action(listSessions)
  program
    .command('cut <session>')
    .description('end a session now')
    .requiredOption('--reason <text>', 'why; it is logged and told to the vendor')
    .action(cutSession)
  const session = program
    .command('session')
    .description('one session: watching it, holding it, ending it')
  session
    .command('watch <session>')
    .description('what it does now, until it ends; Ctrl-C leaves')
    .option(
      '--supervise',
      'answer for it while you watch: what policy asks a person of the plant for',
    )
    .option('--once', 'say it once and leave')
    .action(watchSession)
  for (const act of ['pause', 'resume'] as const)
    session
      .command(`${act} <session>`)
      .description(act === 'pause' ? 'hold it: nothing passes, nothing is cut' : 'let it go on')
      .requiredOption('--reason <text>', 'why; it is logged')
      .action((id: string, flags: { reason: string }, command: Command) =>
        holdSession(act, id, flags, command),
      )
  session
    .command('kill <session>')
    .description('end it now, as `cut` does')
    .requiredOption('--reason <text>', 'why; it is logged and told to the vendor')
    .action(cutSession)
}

/** Well within the time after which a supervisor counts as gone. */
const LOOK_MS = 2_000

async function watchSession(
  id: string,
  flags: { readonly supervise?: true; readonly once?: true },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  demandId(id)
  const { openApi, SessionWatch: schema } = await import('../client.ts')
  const api = await openApi(options)
  const act = flags.supervise === true ? 'supervise' : 'watch'
  let before = ''
  for (let looks = 0; ; looks++) {
    let seen: SessionWatch
    try {
      seen = await api.call(schema, 'POST', `/sessions/${id}/${act}`)
    } catch (error) {
      if (looks === 0 || !(error instanceof CliError) || error.code !== 'session.ended') throw error
      if (!options.json) say('the session has ended')
      return
    }
    const now = options.json ? JSON.stringify(seen) : watchLines(seen).join('\n')
    // A screen is told what changed; a program each look.
    if (options.json || now !== before) say(now)
    before = now
    if (flags.once === true) return
    await setTimeout(LOOK_MS)
  }
}

function watchLines(seen: SessionWatch): string[] {
  const { session, held_by: heldBy, supervisors, connections, modbus } = seen
  const who = supervisors.map(({ email, identity }) => email ?? identity).join(', ')
  const supervised = seen.must_be_supervised ? 'must be, and nobody does' : 'need not be'
  return facts([
    [
      'session',
      `${session.id} ${session.email ?? session.identity} at ${session.device}/${session.process}`,
    ],
    ['state', heldBy.length === 0 ? session.state : `held by ${heldBy.join(' and ')}`],
    ['supervised', who === '' ? supervised : `by ${who}`],
    ['in, out', `${session.bytes_in}, ${session.bytes_out} bytes`],
    ...(modbus === null
      ? []
      : [
          [
            'modbus',
            `${modbus.passed} passed, ${modbus.writes} of them writes; ${modbus.refused} refused`,
          ] as const,
        ]),
    ...connections.map(
      ({ from, exe, pid }) =>
        [
          'connection',
          `from ${from ?? 'here'} to ${plain(exe ?? 'a target on the network')}${pid === null ? '' : ` (pid ${pid})`}`,
        ] as const,
    ),
    ['last activity', instant(seen.last_activity_at)],
  ])
}

async function holdSession(
  act: 'pause' | 'resume',
  id: string,
  flags: { reason: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  demandId(id)
  const { openApi, SessionWatch: schema } = await import('../client.ts')
  const api = await openApi(options)
  const seen = await api.call(schema, 'POST', `/sessions/${id}/${act}`, { reason: flags.reason })
  const held = seen.held_by.join(' and ')
  tell(options, seen, [
    held === '' ? `${id} goes on` : `${id} is held by ${held}: nothing passes`,
    ...(act === 'pause' ? [`next: sallyport session resume ${id} --reason …`] : []),
    ...(act === 'resume' && held !== '' ? [`next: sallyport session watch ${id} --supervise`] : []),
  ])
}

function demandId(id: string): void {
  if (/^s_[0-9a-z]{26}$/.test(id)) return
  throw usage(
    `${JSON.stringify(id)} is not the id of a session`,
    'ids look like s_… and stand in `sallyport sessions`',
  )
}

async function listSessions(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Session: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/sessions')
  const openFirst = items.toSorted(
    (a, b) => Number(b.state === 'open') - Number(a.state === 'open'),
  )
  show(options, openFirst, {
    head: ['session', 'state', 'who', 'where', 'since', 'until', 'in', 'out', 'reason'],
    rows: openFirst.map((row) => [
      row.id,
      row.state,
      row.email ?? row.identity,
      `${row.device}/${row.process}`,
      instant(row.opened_at),
      instant(row.ended_at ?? row.expires_at),
      row.bytes_in,
      row.bytes_out,
      row.reason,
    ]),
    empty: 'nobody is inside',
  })
}

async function cutSession(id: string, flags: { reason: string }, command: Command): Promise<void> {
  const options = globalOptions(command)
  demandId(id)
  const { openApi, Cut } = await import('../client.ts')
  const cut = await (
    await openApi(options)
  ).call(Cut, 'POST', `/sessions/${id}/cut`, { reason: flags.reason })
  tell(
    options,
    cut,
    cut.sessions.map((row) => `cut ${row.id} in ${row.time_to_cut_ms.toFixed(1)} ms`),
  )
}

/** `sallyport sessions` and `sallyport cut`: who is inside right now, and ending that. */
import type { Command } from 'commander'
import { usage } from '../exit.ts'
import { instant, show, tell } from '../print.ts'
import { globalOptions } from './options.ts'

export function registerSession(program: Command): void {
  program.command('sessions').description('sessions, open ones first').action(listSessions)
  program
    .command('cut <session>')
    .description('end a session now')
    .requiredOption('--reason <text>', 'why; it is logged and told to the vendor')
    .action(cutSession)
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
  if (!/^s_[0-9a-z]{26}$/.test(id))
    throw usage(
      `${JSON.stringify(id)} is not the id of a session`,
      'ids look like s_… and stand in `sallyport sessions`',
    )
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

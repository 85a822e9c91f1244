/** `sallyport lock`: shutting somebody, something or everything out, until it is lifted. */
import type { Command } from 'commander'
import { usage } from '../exit.ts'
import { instant, plain, show, tell } from '../print.ts'
import { globalOptions } from './options.ts'

const SCOPES = ['identity', 'company', 'device', 'process', 'zone', 'everything']

export function registerLock(program: Command): void {
  const lock = program
    .command('lock')
    .description('shut somebody or something out: open sessions are cut, and none begins')
  lock
    .command('add <scope> [target]')
    .description(
      'scope: identity EMAIL, company NAME, device ID, process DEVICE/PROCESS, zone ID, everything',
    )
    .requiredOption('--reason <text>', 'why; it is logged')
    .action(addLock)
  lock.command('list').description('locks, those in force first').action(listLocks)
  lock
    .command('lift <lock>')
    .description('let them in again')
    .requiredOption('--reason <text>', 'why; it is logged')
    .action(async (id: string, flags: { reason: string }, command: Command) => {
      const options = globalOptions(command)
      if (!/^l_[0-9a-z]{26}$/.test(id))
        throw usage(
          `${JSON.stringify(id)} is not the id of a lock`,
          'ids look like l_… and stand in `sallyport lock list`',
        )
      const { openApi, Lock } = await import('../client.ts')
      const lifted = await (await openApi(options)).call(Lock, 'POST', `/locks/${id}/lift`, flags)
      tell(options, lifted, [`${lifted.id} is lifted: ${lifted.scope} ${plain(lifted.target)}`])
    })
}

async function addLock(
  scope: string,
  target: string | undefined,
  flags: { readonly reason: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  if (!SCOPES.includes(scope))
    throw usage(`${JSON.stringify(scope)} is nothing to lock`, `say one of ${SCOPES.join(', ')}`)
  const { openApi, Locked } = await import('../client.ts')
  const body = { scope, reason: flags.reason, ...(target === undefined ? {} : { target }) }
  const { lock, known, cut } = await (await openApi(options)).call(Locked, 'POST', '/locks', body)
  tell(options, { lock, known, cut }, [
    `${lock.id} locks ${lock.scope} ${plain(lock.target)}`,
    ...(known
      ? []
      : [`warning: no ${lock.scope} of this name is known here; check it, the lock is in force`]),
    ...cut.sessions.map(({ id, time_to_cut_ms }) => `cut ${id} in ${time_to_cut_ms.toFixed(1)} ms`),
    ...(cut.sessions.length === 0 ? ['no session was open under it'] : []),
    `next: sallyport lock lift ${lock.id} --reason …`,
  ])
}

async function listLocks(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Lock: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/locks')
  const first = items.toSorted((a, b) => Number(b.lifted === null) - Number(a.lifted === null))
  show(options, first, {
    head: ['lock', 'state', 'scope', 'target', 'since', 'by', 'reason'],
    rows: first.map((row) => [
      row.id,
      row.lifted === null ? 'in force' : 'lifted',
      row.scope,
      row.target,
      instant(row.at),
      row.by_email ?? row.by,
      row.reason,
    ]),
    empty: 'nothing is locked',
  })
}

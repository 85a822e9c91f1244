/** `sallyport break-glass`: breaking the seal of a grant in an emergency, and the review afterwards. */
import type { Command } from 'commander'
import { grantFacts, grantId, nextApproval } from '../grant.ts'
import { instant, show, tell } from '../print.ts'
import { globalOptions } from './options.ts'

export function registerBreakGlass(program: Command): void {
  const glass = program
    .command('break-glass')
    .description('sealed grants for emergencies: opening one, and the review that follows')
  glass
    .command('open <grant>')
    .description('ask for the seal of your grant to be broken; its quorum approves with passkeys')
    .requiredOption('--reason <text>', 'what has happened; everybody who is told reads it')
    .option('--ticket <ref>', 'the incident, where it has a number')
    .action(async (id: string, flags: { reason: string; ticket?: string }, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Grant: schema } = await import('../client.ts')
      const api = await openApi(options)
      const asked = await api.call(schema, 'POST', `/grants/${grantId(id)}/unseal`, flags)
      tell(options, asked, [
        `${asked.id} is ${asked.state}`,
        ...(await grantFacts(asked)),
        `next: ${nextApproval(asked)}`,
      ])
    })
  glass
    .command('list')
    .description('seals that were broken: by whom, and whether their review is closed')
    .action(async (_flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { all, openApi, BreakGlass } = await import('../client.ts')
      const items = await all(await openApi(options), BreakGlass, 'GET', '/break-glass')
      show(options, items, {
        head: ['grant', 'where', 'holder', 'opened', 'by', 'review', 'reason'],
        rows: items.map((row) => [
          row.grant,
          `${row.device}/${row.processes.join(',')}`,
          row.holder,
          instant(row.opened_at),
          row.opened_by.join(', '),
          row.closed === null ? `due ${instant(row.due_at)}` : `closed ${instant(row.closed.at)}`,
          row.reason,
        ]),
        empty: 'no seal was ever broken',
      })
    })
  glass
    .command('review <grant>')
    .description('close the review of a broken seal; not by whoever was inside')
    .requiredOption('--note <text>', 'what was done, and that it is in order')
    .action(async (id: string, flags: { note: string }, command: Command) => {
      const options = globalOptions(command)
      const { openApi, BreakGlass } = await import('../client.ts')
      const api = await openApi(options)
      const closed = await api.call(BreakGlass, 'POST', `/grants/${grantId(id)}/review`, flags)
      tell(options, closed, [`the review of ${closed.grant} is closed`])
    })
}

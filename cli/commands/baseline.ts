/** `sallyport device baseline`: what a device exposes against what a person accepted. */
import type { Command } from 'commander'
import type { DeviceBaseline, Exposed } from '#api'
import { CliError, Exited } from '../exit.ts'
import { confirm, readName } from '../input.ts'
import { facts, instant, layOut, note, say, tell } from '../print.ts'
import { globalOptions } from './options.ts'

export function registerBaseline(device: Command): void {
  const baseline = device
    .command('baseline')
    .description('what a device exposes, against what was accepted')
  baseline
    .command('show <id>')
    .description('what was accepted, by whom, and what the device exposes now')
    .action(showBaseline)
  baseline
    .command('diff <id>')
    .description('every fact that is not as accepted; exit 1 where there is drift')
    .action(diffBaseline)
  baseline
    .command('accept <id>')
    .description('accept what the device exposes now, as it is shown')
    .option('--hash <hex>', 'accept exactly this inventory, as `show` named it, without asking')
    .option('--reason <text>', 'why; it is logged')
    .option('--yes', 'do not ask')
    .action(acceptBaseline)
}

async function showBaseline(id: string, _flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const row = await fetchBaseline(id, command)
  tell(options, row, [
    ...facts([
      ['device', row.device],
      ['accepted', row.accepted === null ? null : instant(row.accepted.at)],
      ['by', row.accepted?.by],
      ['accepted hash', row.accepted?.hash],
      ['told', row.current === null ? null : instant(row.current.at)],
      ['current hash', row.current?.hash],
      ['not readable', row.current?.unreadable],
      ['drift', row.drift],
    ]),
  ])
  if (options.json) return
  if (row.current === null) note('its agent has not told yet what it exposes')
  else say(exposedTable(row.current.processes))
}

async function diffBaseline(id: string, _flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const row = await fetchBaseline(id, command)
  if (row.accepted === null)
    throw new CliError(`${row.device} has no baseline`, {
      code: 'baseline.none',
      exit: 'failed',
      next: `accept what it exposes: sallyport device baseline accept ${row.device}`,
    })
  if (options.json) say(JSON.stringify(row.differences))
  else say(differenceTable(row))
  if (row.drift === true) throw new Exited('failed')
}

async function acceptBaseline(
  id: string,
  flags: { readonly hash?: string; readonly reason?: string; readonly yes?: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const device = readName(id, 'device')
  const hash = flags.hash ?? (await shownAndConfirmed(device, flags.yes, command))
  const { openApi, DeviceBaseline: schema } = await import('../client.ts')
  const body = { hash, ...(flags.reason === undefined ? {} : { reason: flags.reason }) }
  const api = await openApi(options)
  const row = await api.call(schema, 'POST', `/devices/${device}/baseline`, body)
  tell(options, row, [`the baseline of ${row.device} is ${hash}`])
}

async function shownAndConfirmed(
  device: string,
  yes: boolean | undefined,
  command: Command,
): Promise<string> {
  const row = await fetchBaseline(device, command)
  if (row.current === null)
    throw new CliError(`${device} has not told what it exposes`, {
      code: 'baseline.unseen',
      exit: 'failed',
      next: 'start its agent; it tells when it connects',
    })
  const table = row.accepted === null ? exposedTable(row.current.processes) : differenceTable(row)
  for (const line of table.split('\n')) note(line)
  const silent = row.current.processes.filter(
    ({ kind, programs }) => kind === 'tcp' && programs.length === 0,
  )
  for (const { process } of silent)
    note(`nobody listens for ${process} now: whoever does later is drift`)
  if (!(await confirm(`accept this as the baseline of ${device}?`, yes))) {
    say('nothing was changed')
    throw new CliError('not accepted', { code: 'not.confirmed', exit: 'interrupted' })
  }
  return row.current.hash
}

async function fetchBaseline(id: string, command: Command): Promise<DeviceBaseline> {
  const { openApi, DeviceBaseline: schema } = await import('../client.ts')
  const api = await openApi(globalOptions(command))
  return await api.call(schema, 'GET', `/devices/${readName(id, 'device')}/baseline`)
}

function exposedTable(processes: readonly Exposed[]): string {
  return layOut({
    head: ['process', 'kind', 'executable', 'SHA-256', 'user', 'unit', 'listens on'],
    rows: processes.map(({ process, kind, programs, listens }) => [
      process,
      kind,
      programs.map(({ exe }) => exe ?? '-').join(' '),
      programs.map(({ sha256 }) => sha256?.slice(0, 12) ?? '-').join(' '),
      programs.map(({ uid }) => uid ?? '-').join(' '),
      programs.map(({ unit }) => unit ?? '-').join(' '),
      listens?.join(' '),
    ]),
    empty: 'the device exposes nothing',
  })
}

function differenceTable({ differences }: DeviceBaseline): string {
  return layOut({
    head: ['process', 'fact', 'accepted', 'current', 'drift'],
    rows: differences.map(({ process, fact, accepted, current, drift }) => [
      process,
      fact,
      accepted,
      current,
      drift,
    ]),
    empty: 'it is as accepted',
  })
}

/** `sallyport device`: machines with an identity; adding one prints what to run on it. */
import type { Command } from 'commander'
import type { Device, DeviceToken, Revocation } from '#api'
import { usage } from '../exit.ts'
import { readName } from '../input.ts'
import { facts, instant, layOut, plain, say, show, tell } from '../print.ts'
import { registerBaseline } from './baseline.ts'
import { collect, globalOptions } from './options.ts'
import { processTable } from './process.ts'

interface AddFlags {
  readonly zone?: string
  readonly label?: string[]
}

export function registerDevice(program: Command): void {
  const device = program.command('device').description('machines with an identity and an agent')
  device
    .command('add <id>')
    .description('create a device and its one-time token; prints the command to run on it')
    .option('--zone <zone>', 'where it stands: a zone that policy describes (default: "default")')
    .option('--label <key=value>', 'a label; may be repeated', collect)
    .action(addDevice)
  device.command('list').description('devices, and which are connected').action(listDevices)
  device.command('show <id>').description('one device with its processes').action(showDevice)
  device
    .command('token <id>')
    .description('make a new one-time token; an unused older one ends')
    .action(async (id: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, DeviceToken: schema } = await import('../client.ts')
      const api = await openApi(options)
      const token = await api.call(schema, 'POST', `/devices/${readName(id, 'device')}/token`)
      tell(options, token, tokenLines(token))
    })
  device
    .command('tokens <id>')
    .description('the tokens of a device, and what became of each')
    .action(listTokens)
  tokenCommand(device, 'revoke-token', 'revoke', 'end a token before it is used')
  tokenCommand(
    device,
    'rebind-token',
    'rebind',
    'let another key use a token; the certificate it got, which nobody used, ends',
  )
  device
    .command('pending')
    .description('enrolments and renewals that wait for a person')
    .action(listPending)
  answerCommand(device, 'approve', 'let a waiting enrolment or renewal go on')
  answerCommand(device, 'reject', 'refuse a waiting enrolment or renewal')
  registerBaseline(device)
  stateCommand(device, 'quarantine', 'cut the sessions of a device and let none begin')
  stateCommand(device, 'resume', 'let sessions to a quarantined device begin again')
  device
    .command('replace <id>')
    .description('hand the identity to another machine: old certificates end, a new token is made')
    .requiredOption('--reason <text>', 'why; it is logged')
    .action(replaceDevice)
  device
    .command('decommission <id>')
    .description(
      'take a device out of service for good: certificates, tokens, tunnel, sessions end',
    )
    .requiredOption('--reason <text>', 'why; it is logged')
    .action(decommissionDevice)
}

async function replaceDevice(
  id: string,
  flags: { reason: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { openApi, ReplacedDevice } = await import('../client.ts')
  const path = `/devices/${readName(id, 'device')}/replace`
  const replaced = await (await openApi(options)).call(ReplacedDevice, 'POST', path, flags)
  tell(options, replaced, [
    `${replaced.device.id} waits for the machine that takes its place`,
    ...cutLines(replaced.revocation),
    ...tokenLines(replaced.token),
  ])
}

async function decommissionDevice(
  id: string,
  flags: { reason: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { openApi, RevokedDevice } = await import('../client.ts')
  const path = `/devices/${readName(id, 'device')}/decommission`
  const { device, revocation } = await (
    await openApi(options)
  ).call(RevokedDevice, 'POST', path, flags)
  tell(options, { device, revocation }, [
    `${device.id} is ${device.state}`,
    ...cutLines(revocation),
    'next: erase the key on the machine; what happened: sallyport audit tail',
  ])
}

/** What a revocation ended, and how fast. */
export function cutLines({ serials, tunnels, sessions, time_to_cut_ms }: Revocation): string[] {
  const ended = serials.length === 1 ? '1 certificate' : `${serials.length} certificates`
  const cut = `${tunnels === 1 ? '1 tunnel' : `${tunnels} tunnels`} and ${sessions.length === 1 ? '1 session' : `${sessions.length} sessions`}`
  return [
    `revoked ${ended}${serials.length === 0 ? ' (none was left)' : ''}`,
    ...serials.map((serial) => `  ${serial}`),
    tunnels + sessions.length === 0
      ? 'nothing was open'
      : `cut ${cut} in ${time_to_cut_ms.toFixed(1)} ms`,
  ]
}

function stateCommand(device: Command, verb: 'quarantine' | 'resume', description: string): void {
  device
    .command(`${verb} <id>`)
    .description(description)
    .requiredOption('--reason <text>', 'why; it is logged')
    .action(async (id: string, flags: { reason: string }, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Device: schema } = await import('../client.ts')
      const api = await openApi(options)
      const path = `/devices/${readName(id, 'device')}/${verb}`
      const changed = await api.call(schema, 'POST', path, { reason: flags.reason })
      tell(options, changed, [`${changed.id} is ${changed.state}`])
    })
}

function answerCommand(device: Command, verb: 'approve' | 'reject', description: string): void {
  device
    .command(`${verb} <enrolment>`)
    .description(description)
    .requiredOption('--reason <text>', 'why; it is logged')
    .action(async (id: string, flags: { reason: string }, command: Command) => {
      if (!/^e_[0-9a-z]{26}$/.test(id))
        throw usage(`${JSON.stringify(id)} is not an enrolment`, 'see `sallyport device pending`')
      const options = globalOptions(command)
      const { openApi, Enrolment: schema } = await import('../client.ts')
      const api = await openApi(options)
      const row = await api.call(schema, 'POST', `/enrolments/${id}/${verb}`, flags)
      tell(options, row, [`${row.id} of ${row.device} is ${row.state}`])
    })
}

function tokenCommand(
  device: Command,
  name: string,
  act: 'revoke' | 'rebind',
  description: string,
): void {
  device
    .command(`${name} <id> <token>`)
    .description(description)
    .requiredOption('--reason <text>', 'why; it is logged')
    .action(async (id: string, token: string, flags: { reason: string }, command: Command) => {
      const of = readName(id, 'device')
      if (!/^t_[0-9a-z]{26}$/.test(token))
        throw usage(
          `${JSON.stringify(token)} is not the id of a token`,
          `ids begin with t_: sallyport device tokens ${of}`,
        )
      const options = globalOptions(command)
      const { openApi, EnrolmentToken: schema } = await import('../client.ts')
      const path = `/devices/${of}/tokens/${token}/${act}`
      const row = await (await openApi(options)).call(schema, 'POST', path, flags)
      const until = act === 'rebind' ? `, until ${instant(row.expires_at)}` : ''
      tell(options, row, [`${row.id} of ${of} is ${row.state}${until}`])
    })
}

async function listTokens(id: string, _flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, EnrolmentToken: item } = await import('../client.ts')
  const path = `/devices/${readName(id, 'device')}/tokens`
  const items = await all(await openApi(options), item, 'GET', path)
  show(options, items, {
    head: ['token', 'kind', 'state', 'made', 'until', 'used', 'certificate'],
    rows: items.map((row) => [
      row.id,
      row.kind,
      row.state,
      instant(row.created_at),
      row.kind === 'maker' ? '-' : instant(row.expires_at),
      instant(row.used_at),
      row.serial,
    ]),
    empty: `no token was made yet; next: sallyport device token ${id}`,
  })
}

async function listPending(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Enrolment: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/enrolments')
  show(options, items, {
    head: ['enrolment', 'device', 'asks by', 'from', 'key SHA-256', 'because', 'state', 'until'],
    rows: items.map((row) => [
      row.id,
      row.device,
      row.principal,
      row.from,
      row.spki_sha256.slice(0, 16),
      row.denials.map(({ code }) => code).join(' '),
      row.state,
      instant(row.expires_at),
    ]),
    empty: 'nothing waits for an approval',
  })
}

async function addDevice(id: string, flags: AddFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, AddedDevice } = await import('../client.ts')
  const api = await openApi(options)
  const added = await api.call(AddedDevice, 'POST', '/devices', {
    id: readName(id, 'device'),
    ...(flags.zone === undefined ? {} : { zone: flags.zone }),
    ...(flags.label === undefined ? {} : { labels: readLabels(flags.label) }),
  })
  tell(options, added, [
    `${added.device.id} is known, in zone ${plain(added.device.zone)}`,
    ...tokenLines(added.token),
  ])
}

function tokenLines(token: DeviceToken): string[] {
  return [
    ...facts([
      ['token', token.token],
      ['expires', instant(token.expires_at)],
      ['CA SHA-256', token.ca_sha256],
    ]),
    ...(token.install_command === null
      ? ['run on the device (the token is shown once):', `  ${plain(token.enrol_command)}`]
      : [
          'run on the device, with --target NAME=KIND:ADDRESS:PORT behind it for each target (the token is shown once):',
          `  ${plain(token.install_command)}`,
          'or, where the agent is there already:',
          `  ${plain(token.enrol_command)}`,
        ]),
  ]
}

function readLabels(pairs: readonly string[]): Record<string, string> {
  const labels: Record<string, string> = Object.create(null)
  for (const pair of pairs) {
    const at = pair.indexOf('=')
    if (at < 1) throw usage(`${JSON.stringify(pair)} is not a label`, 'write it as key=value')
    labels[pair.slice(0, at)] = pair.slice(at + 1)
  }
  return labels
}

async function listDevices(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Device: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/devices')
  show(options, items, {
    head: [
      'device',
      'zone',
      'state',
      'connected',
      'key exchange',
      'certificate until',
      'processes',
    ],
    rows: items.map((row) => [
      row.id,
      row.zone,
      row.state,
      row.connected,
      row.tls?.group,
      instant(row.certificate?.not_after ?? null),
      row.processes.map(({ id }) => id).join(' '),
    ]),
    empty: 'no devices yet; next: sallyport device add ID',
  })
}

async function showDevice(id: string, _flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Device: schema } = await import('../client.ts')
  const api = await openApi(options)
  const row = await api.call(schema, 'GET', `/devices/${readName(id, 'device')}`)
  tell(options, row, describe(row))
  if (!options.json) say(layOut(processTable(row.processes)))
}

const CUT_OFF = 'no: its owner has cut it off'

function describe(row: Device): string[] {
  return facts([
    ['device', row.id],
    ['zone', row.zone],
    ['state', row.state],
    [
      'connected',
      row.connected ? `since ${instant(row.connected_at)}` : row.island ? CUT_OFF : false,
    ],
    [
      'tunnel',
      row.tls === null ? null : `${row.tls.version} ${row.tls.cipher} ${row.tls.group ?? '-'}`,
    ],
    ['post-quantum', row.tls?.pq],
    ['agent', row.agent_version],
    ['drift', row.drift === null ? 'no baseline' : row.drift],
    ['certificate', row.certificate?.serial],
    ['until', instant(row.certificate?.not_after ?? null)],
    [
      'labels',
      Object.entries(row.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(' '),
    ],
    ['created', instant(row.created_at)],
  ])
}

/** `sallyport service`: programs that call the API in their own name. */
import type { Command } from 'commander'
import { usage } from '../exit.ts'
import { readDuration } from '../input.ts'
import { facts, instant, note, plain, show, tell } from '../print.ts'
import { collect, globalOptions } from './options.ts'

interface AddFlags {
  readonly role: string[]
  readonly scope: string[]
  readonly out: string
  readonly group?: string[]
  readonly vendor?: string
  readonly for?: string
}

export function registerService(program: Command): void {
  const service = program
    .command('service')
    .description('programs that call the gateway in their own name, for automation')
  service
    .command('add <name>')
    .description('enter one: makes its key here, and writes the file it signs in with')
    .requiredOption('--role <role>', 'what policy lets it do; may be repeated', collect)
    .requiredOption(
      '--scope <scope>',
      'what of that it may use, as in devices:read; may be repeated',
      collect,
    )
    .requiredOption('--out <file>', 'where to write the file, 0600; it must not be there yet')
    .option('--group <group>', 'a group that policy knows; may be repeated', collect)
    .option('--vendor <company>', 'of a company; without it, of the staff')
    .option('--for <duration>', 'how long it stands: 1h to 8784h; 2160h where absent')
    .action(addService)
  service.command('list').description('which there are, newest first').action(listServices)
  service
    .command('revoke <service>')
    .description('it gets no token any more; what runs in its name is cut')
    .action(async (id: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      if (!/^v_[0-9a-z]{26}$/.test(id))
        throw usage(
          `${JSON.stringify(id)} is not the id of a service`,
          'ids look like v_… and stand in `sallyport service list`',
        )
      const { openApi, Service } = await import('../client.ts')
      const api = await openApi(options)
      const revoked = await api.call(Service, 'POST', `/services/${id}/revoke`, {})
      tell(options, revoked, [`${plain(revoked.name)} is revoked, and its sessions are cut`])
    })
}

async function addService(name: string, flags: AddFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Service } = await import('../client.ts')
  const { makeKey } = await import('../login/device.ts')
  const { saveServiceFile } = await import('../login/service.ts')
  const api = await openApi(options)
  const key = await makeKey()
  const { d: _, ...shown } = key
  const made = await api.call(Service, 'POST', '/services', {
    name,
    roles: flags.role,
    scopes: flags.scope,
    key: shown,
    ...(flags.group === undefined ? {} : { groups: flags.group }),
    ...(flags.vendor === undefined ? {} : { vendor: flags.vendor }),
    ...(flags.for === undefined ? {} : { stands_s: readDuration(flags.for) }),
  })
  const { gateway, anchor } = api
  const file = { v: 1, service: made.id, gateway: gateway.origin, anchor, key } as const
  try {
    await saveServiceFile(flags.out, file)
  } catch (error) {
    // Nobody has its key: it would stand for nothing.
    await api.call(Service, 'POST', `/services/${made.id}/revoke`, {})
    throw error
  }
  tell(options, made, [
    `${plain(made.name)} is entered`,
    ...facts([
      ['id', made.id],
      ['may use', made.scopes.join(' ')],
      ['good until', instant(made.expires_at)],
      ['file', flags.out],
    ]),
  ])
  if (!options.json)
    note(`use it: SALLYPORT_SERVICE=${flags.out} sallyport …; the file is all that is needed`)
}

async function listServices(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Service: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/services')
  show(options, items, {
    head: ['service', 'name', 'state', 'roles', 'scopes', 'until', 'used', 'by'],
    rows: items.map((row) => [
      row.id,
      row.name,
      row.state,
      row.roles.join(' '),
      row.scopes.join(' '),
      instant(row.expires_at),
      instant(row.used_at),
      row.by,
    ]),
    empty: 'no program calls in its own name; next: sallyport service add NAME --role … --scope …',
  })
}

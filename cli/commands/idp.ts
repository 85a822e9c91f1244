/** `sallyport idp`: companies whose own OpenID providers sign their people in. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import type { Idp } from '#api'
import { CliError, usage } from '../exit.ts'
import { confirm, readDuration, readSecret } from '../input.ts'
import { facts, note, show, tell } from '../print.ts'
import { collect, globalOptions } from './options.ts'

interface AddFlags {
  readonly name: string
  readonly issuer: string
  readonly clientId: string
  readonly secretFile?: string
  readonly signs?: boolean
  readonly ca?: string
  readonly vendor?: string
  readonly staff?: boolean
  readonly domain: string[]
  readonly trustEmail?: boolean
  readonly groupsClaim?: string
  readonly group?: string[]
  readonly role?: string[]
  readonly method?: string[]
  readonly loginFor?: string
  readonly listed?: boolean
}

export function registerIdp(program: Command): void {
  const idp = program
    .command('idp')
    .description('companies whose own OpenID providers sign their people in')
  registerAdd(idp)
  idp.command('list').description('the providers there are').action(listIdps)
  idp
    .command('show <id>')
    .description('one of them, with what the company must enter at its provider')
    .action(async (id: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Idp: schema } = await import('../client.ts')
      const found = await (await openApi(options)).call(schema, 'GET', `/idps/${idOf(id)}`)
      tell(options, found, [found.name, ...idpFacts(found)])
    })
  for (const act of ['enable', 'disable'] as const)
    idp
      .command(`${act} <id>`)
      .description(
        act === 'enable'
          ? 'let its people sign in again'
          : 'let nobody in through it, and end the logins of its people',
      )
      .action(async (id: string, _flags: unknown, command: Command) => switchIdp(id, act, command))
  idp
    .command('remove <id>')
    .description('for good: its people are disabled, and their logins end')
    .option('--yes', 'do not ask')
    .action(removeIdp)
}

function registerAdd(idp: Command): void {
  idp
    .command('add <id>')
    .description('add a company; the id stands in the addresses that the company enters')
    .requiredOption('--name <name>', 'what people read')
    .requiredOption('--issuer <url>', 'exactly as the provider calls itself')
    .requiredOption('--client-id <id>', 'what the company calls this gateway')
    .requiredOption('--domain <domain>', 'addresses it may vouch for; may be repeated', collect)
    .option('--vendor <company>', 'the company that everybody from here belongs to')
    .option('--staff', 'its people are staff of the plant')
    .option('--secret-file <file>', 'file that holds the client secret')
    .option('--signs', 'prove ourselves with the gateway’s key instead of a secret')
    .option('--ca <file>', 'PEM of the only root its servers are trusted by')
    .option(
      '--group <theirs=ours>',
      'a value of the groups claim that counts; may be repeated',
      collect,
    )
    .option(
      '--role <theirs=ours>',
      'staff only: a value of the groups claim that is a role',
      collect,
    )
    .option('--method <theirs=ours>', 'a value of amr that counts, e.g. hwk=webauthn', collect)
    .option('--groups-claim <name>', 'the claim that holds groups', 'groups')
    .option('--trust-email', 'it asserts verified addresses only, and does not say so')
    .option('--login-for <duration>', 'how long one login lasts', '8h')
    .option('--listed', 'show the company to everybody on the sign-in page')
    .action(addIdp)
}

function idOf(text: string): string {
  if (/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/.test(text)) return text
  throw usage(
    `${JSON.stringify(text)} is not the id of a provider`,
    'ids are small letters, digits and dashes, and stand in `sallyport idp list`',
  )
}

function pairs(values: readonly string[] | undefined): Record<string, string> {
  return Object.fromEntries(
    (values ?? []).map((text) => {
      const cut = text.lastIndexOf('=')
      if (cut > 0 && cut < text.length - 1) return [text.slice(0, cut), text.slice(cut + 1)]
      throw usage(`${JSON.stringify(text)} is not a pair`, 'write it as theirs=ours')
    }),
  )
}

async function addIdp(id: string, flags: AddFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  if ((flags.vendor === undefined) !== (flags.staff === true))
    throw usage('say whose people they are', 'give --vendor COMPANY, or --staff')
  if (flags.signs === true && flags.secretFile !== undefined)
    throw usage('a secret and a signature do not go together', 'give --secret-file or --signs')
  const secret =
    flags.secretFile === undefined ? undefined : await readSecret(flags.secretFile, 'client secret')
  const body = {
    id: idOf(id),
    name: flags.name,
    issuer: flags.issuer,
    client_id: flags.clientId,
    auth: flags.signs === true ? 'key' : secret === undefined ? 'none' : 'secret',
    ...(secret === undefined ? {} : { secret }),
    ...(flags.ca === undefined ? {} : { ca: await readPem(flags.ca) }),
    ...(flags.vendor === undefined ? {} : { vendor: flags.vendor }),
    domains: flags.domain,
    trust_email: flags.trustEmail ?? false,
    groups_claim: flags.groupsClaim ?? 'groups',
    groups: pairs(flags.group),
    roles: pairs(flags.role),
    methods: pairs(flags.method),
    login_s: readDuration(flags.loginFor ?? '8h'),
    listed: flags.listed ?? false,
  }
  const { openApi, Idp: schema } = await import('../client.ts')
  const added = await (await openApi(options)).call(schema, 'POST', '/idps', body)
  tell(options, added, [
    `${added.name} may sign its people in`,
    ...idpFacts(added),
    'next: the company enters the two addresses at its provider',
  ])
}

async function readPem(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause: unknown) => {
    throw new CliError(
      'the root cannot be read',
      { code: 'usage', exit: 'usage', why: path, next: 'name a PEM file with --ca' },
      { cause },
    )
  })
}

function idpFacts(idp: Idp): string[] {
  const map = (of: Readonly<Record<string, string>>) =>
    Object.entries(of)
      .map(([theirs, ours]) => `${theirs}=${ours}`)
      .join(' ')
  return facts([
    ['issuer', idp.issuer],
    ['client', `${idp.client_id} (${idp.auth})`],
    ['company', idp.vendor ?? 'staff'],
    ['domains', idp.domains.join(' ')],
    ['groups', map(idp.groups)],
    ['roles', map(idp.roles)],
    ['methods', map(idp.methods)],
    ['state', idp.enabled ? 'enabled' : 'disabled'],
    ['return to', idp.redirect_uri],
    ['logout', idp.backchannel_logout_uri],
    ['keys', idp.auth === 'key' ? idp.jwks_uri : null],
  ])
}

async function listIdps(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Idp: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/idps')
  show(options, items, {
    head: ['id', 'name', 'company', 'issuer', 'domains', 'enabled'],
    rows: items.map((row) => [
      row.id,
      row.name,
      row.vendor ?? 'staff',
      row.issuer,
      row.domains.join(' '),
      row.enabled,
    ]),
    empty: 'no company; next: sallyport idp add ID --issuer URL …',
  })
}

async function switchIdp(id: string, act: 'enable' | 'disable', command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Idp: schema } = await import('../client.ts')
  const path = `/idps/${idOf(id)}/${act}`
  const changed = await (await openApi(options)).call(schema, 'POST', path)
  const said = changed.enabled
    ? 'may sign its people in again'
    : 'signs nobody in; the logins of its people have ended'
  tell(options, changed, [`${changed.name} ${said}`])
}

async function removeIdp(id: string, flags: { yes?: boolean }, command: Command): Promise<void> {
  const options = globalOptions(command)
  const name = idOf(id)
  note(`everybody who signs in through ${name} is disabled for good`)
  if (!(await confirm(`remove ${name}?`, flags.yes))) {
    note('nothing was changed')
    return
  }
  const { openApi, RemovedIdp } = await import('../client.ts')
  const removed = await (await openApi(options)).call(RemovedIdp, 'POST', `/idps/${name}/remove`)
  tell(options, removed, [`${name} is removed; ${removed.people} people were disabled`])
}

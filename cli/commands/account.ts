/** `sallyport account`: people of the embedded identity provider. */
import type { Command } from 'commander'
import { readSecret } from '../input.ts'
import { facts, plain, show, tell } from '../print.ts'
import type { Account } from '#api'
import type { Api } from '../client.ts'
import { CliError, usage } from '../exit.ts'
import { registerInvitations } from './invitation.ts'
import { collect, globalOptions } from './options.ts'

interface AddFlags {
  readonly email: string
  readonly name: string
  readonly party: string
  readonly vendor?: string
  readonly role?: string[]
  readonly group?: string[]
  readonly passwordFile?: string
}

export function registerAccount(program: Command): void {
  const account = program.command('account').description('people who may sign in here')
  account
    .command('add')
    .description('add a person; the password comes from a file, from stdin (-) or from a prompt')
    .requiredOption('--email <address>', 'what they sign in with')
    .requiredOption('--name <name>', 'what others read')
    .option('--party <party>', 'staff or vendor', 'staff')
    .option('--vendor <company>', 'the company of a vendor')
    .option(
      '--role <role>',
      'admin, engineer, operator, auditor or vendor; may be repeated',
      collect,
    )
    .option('--group <group>', 'a group that policy knows; may be repeated', collect)
    .option('--password-file <file>', 'file that holds the password')
    .action(addAccount)
  account
    .command('list')
    .description('who there is')
    .action(async (_flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi } = await import('../client.ts')
      const items = await everybody(await openApi(options))
      show(options, items, {
        head: ['email', 'name', 'party', 'vendor', 'roles', 'groups', 'provider', 'disabled'],
        rows: items.map((row) => [
          row.email,
          row.name,
          row.party,
          row.vendor,
          row.roles.join(' '),
          row.groups.join(' '),
          row.idp,
          row.disabled,
        ]),
        empty: 'nobody yet',
      })
    })
  registerInvitations(account, find)
  registerChanges(account)
}

function registerChanges(account: Command): void {
  account
    .command('disable <email>')
    .description('end every login and session of a person, and let them in no more')
    .action(async (email: string, _flags: unknown, command: Command) =>
      change(email, 'disable', {}, command),
    )
  account
    .command('enable <email>')
    .description('let a disabled person sign in again')
    .action(async (email: string, _flags: unknown, command: Command) =>
      change(email, 'enable', {}, command),
    )
  account
    .command('reset-passkeys <email>')
    .description('take every passkey off an account whose owner lost theirs, and end its logins')
    .action(async (email: string, _flags: unknown, command: Command) =>
      resetPasskeys(email, command),
    )
  account
    .command('reset-totp <email>')
    .description(
      'take the authenticator app off an account whose owner lost it, and end its logins',
    )
    .action(async (email: string, _flags: unknown, command: Command) => resetTotp(email, command))
  account
    .command('link <email> [other]')
    .description(
      'two accounts are one person, who then counts once; without the other: nobody else',
    )
    .action(async (email: string, other: string | undefined, _flags: unknown, command: Command) => {
      const { openApi } = await import('../client.ts')
      const to =
        other === undefined ? null : (await find(await openApi(globalOptions(command)), other)).sub
      await change(email, 'link', { to }, command)
    })
}

async function everybody(api: Api): Promise<readonly Account[]> {
  const { all, Account: item } = await import('../client.ts')
  return await all(api, item, 'GET', '/accounts')
}

async function find(api: Api, email: string): Promise<Account> {
  const { all, Account: item } = await import('../client.ts')
  const [found] = await all(api, item, 'GET', `/accounts?email=${encodeURIComponent(email)}`)
  if (found !== undefined) return found
  throw new CliError('there is no such account', {
    code: 'account.unknown',
    exit: 'failed',
    why: `nobody signs in here as ${plain(email)}`,
    next: 'see who there is: sallyport account list',
  })
}

const DONE = {
  disable: 'may sign in no more; every login of theirs has ended',
  enable: 'may sign in again',
  link: 'counts as one person with the other account',
} as const

async function change(
  email: string,
  act: keyof typeof DONE,
  body: { readonly to?: string | null },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Account: schema } = await import('../client.ts')
  const api = await openApi(options)
  const { sub } = await find(api, email)
  const changed = await api.call(schema, 'POST', `/accounts/${sub}/${act}`, body)
  const alone = act === 'link' && body.to === null
  tell(options, changed, [`${changed.email} ${alone ? 'stands for themselves alone' : DONE[act]}`])
}

async function addAccount(flags: AddFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  if (flags.party !== 'staff' && flags.party !== 'vendor')
    throw usage(
      `${JSON.stringify(flags.party)} is not a party`,
      'say --party staff or --party vendor',
    )
  const { openApi, Account: schema } = await import('../client.ts')
  const api = await openApi(options)
  const password = await readSecret(flags.passwordFile, 'password')
  const added = await api.call(schema, 'POST', '/accounts', {
    email: flags.email,
    name: flags.name,
    party: flags.party,
    ...(flags.vendor === undefined ? {} : { vendor: flags.vendor }),
    roles: flags.role ?? (flags.party === 'vendor' ? ['vendor'] : []),
    ...(flags.group === undefined ? {} : { groups: flags.group }),
    password,
  })
  tell(options, added, [
    `${added.email} may sign in`,
    ...facts([
      ['name', added.name],
      ['party', added.party],
      ['vendor', added.vendor],
      ['roles', added.roles.join(' ')],
    ]),
  ])
}

async function resetPasskeys(email: string, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Passkeys } = await import('../client.ts')
  const api = await openApi(options)
  const { sub } = await find(api, email)
  const { items } = await api.call(Passkeys, 'POST', `/accounts/${sub}/passkeys/remove`, {})
  tell(options, items, [
    `${plain(email)} has ${items.length} passkeys`,
    `next: they sign in by password, and add a new one with \`sallyport passkey add NAME\`; who has no password needs a link: sallyport account renew ${plain(email)}`,
  ])
}

async function resetTotp(email: string, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Totps } = await import('../client.ts')
  const api = await openApi(options)
  const { sub } = await find(api, email)
  const { items } = await api.call(Totps, 'POST', `/accounts/${sub}/totp/remove`, {})
  tell(options, items, [
    `${plain(email)} has no authenticator app`,
    'next: they sign in by password, and add one with `sallyport totp add NAME`',
    `if wrong codes closed the account and they typed none, somebody knows the password, and signs in with it alone now: sallyport account renew ${plain(email)}`,
  ])
}

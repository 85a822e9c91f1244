/** `sallyport totp …`: one's own authenticator app. */
import type { Command } from 'commander'
import { instant, show, tell } from '../print.ts'
import { globalOptions } from './options.ts'

export function registerTotp(program: Command): void {
  const totp = program
    .command('totp')
    .description('your authenticator app: a code after the password, where you have no passkey')
  totp
    .command('add <name>')
    .description('add one, in place of the one before: prints a link, and waits for its first code')
    .action(addTotp)
  totp.command('list').description('the one you have').action(listTotp)
  totp
    .command('remove')
    .description('remove it; takes a code, or a passkey, of the last five minutes')
    .action(async (_flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Totps } = await import('../client.ts')
      const { items } = await (await openApi(options)).call(Totps, 'POST', '/totp/remove', {})
      tell(options, items, ['removed; signing in asks for no code any more'])
    })
}

async function addTotp(name: string, _flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const [{ openApi, Enrolling, Totps }, { byLink }] = await Promise.all([
    import('../client.ts'),
    import('../passkey.ts'),
  ])
  const api = await openApi(options)
  const before = (await api.call(Totps, 'GET', '/totp')).items[0]
  const link = await api.call(Enrolling, 'POST', '/totp', { name })
  const late = { what: 'no code was given in time', code: 'totp.unanswered' }
  const added = await byLink(options, link, late, async () => {
    const [now] = (await api.call(Totps, 'GET', '/totp')).items
    const same = now?.created_at === before?.created_at && now?.name === before?.name
    return same ? undefined : now
  })
  tell(options, added, [
    `authenticator app ${added.name} added`,
    'next: signing in asks for a code of it from now on; approvals are signed by a passkey: sallyport passkey add NAME',
  ])
}

async function listTotp(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Totps } = await import('../client.ts')
  const { items } = await (await openApi(options)).call(Totps, 'GET', '/totp')
  show(options, items, {
    head: ['name', 'added', 'used'],
    rows: items.map((row) => [row.name, instant(row.created_at), instant(row.used_at)]),
    empty: 'none; next: sallyport totp add NAME',
  })
}

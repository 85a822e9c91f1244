/** `sallyport audit auditor`: whose keys open recordings. The secret half never comes near a gateway. */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { CliError, usage } from '../exit.ts'
import { readName } from '../input.ts'
import { instant, show, tell } from '../print.ts'
import { readIdentities } from '../recorded.ts'
import { globalOptions, type GlobalOptions } from './options.ts'

export function registerAuditor(audit: Command): void {
  const auditor = audit.command('auditor').description('those who can open recordings')
  auditor
    .command('keygen')
    .description(
      'a new pair: the secret key into a file, the public one to be given to an administrator',
    )
    .requiredOption('--out <file>', 'a new file, which only its owner can read')
    .action(keygen)
  auditor
    .command('add <name>')
    .description('seal recordings to this key too, once it has been shown to open something')
    .option('--recipient <key>', 'the public key, age1…')
    .option('--identity <file>', 'the secret key, where it is at hand: then all is done at once')
    .option('--test <file>', 'where the test for the auditor goes; with --recipient')
    .action(add)
  auditor
    .command('answer <test>')
    .description('open a test, as an auditor, and print what it holds; needs no gateway')
    .requiredOption('--identity <file>', 'the secret key')
    .action(answer)
  auditor
    .command('confirm <name> <answer>')
    .description('what the auditor read in the test')
    .action(confirm)
  auditor.command('list').description('whose keys recordings are sealed to').action(list)
  auditor
    .command('remove <name>')
    .description('seal nothing more to this key; what was sealed to it stays so')
    .action(remove)
}

async function keygen(flags: { readonly out: string }, command: Command): Promise<void> {
  const { formatIdentity, identityOf } = await import('#audit')
  const identity = identityOf(new Uint8Array(randomBytes(32)))
  const { text } = identity.recipient
  try {
    writeFileSync(flags.out, `# public key: ${text}\n${formatIdentity(identity)}\n`, {
      mode: 0o600,
      flag: 'wx',
    })
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw usage(`${flags.out} cannot be written: ${why}`, 'give the name of a new file', { cause })
  }
  tell(globalOptions(command), { file: flags.out, recipient: text }, [
    text,
    `the secret key is in ${flags.out}: keep it off the gateway, and a copy of it elsewhere`,
  ])
}

interface AddFlags {
  readonly recipient?: string
  readonly identity?: string
  readonly test?: string
}

async function add(name: string, flags: AddFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  readName(name, 'auditor')
  const { recipient, identity, test } = flags
  if ((recipient === undefined) === (identity === undefined))
    throw usage('give --recipient or --identity', 'the one where the auditor’s key is not at hand')
  if (recipient !== undefined && test === undefined)
    throw usage('give --test FILE too', 'the auditor opens it to show that the key works')
  const [own] = identity === undefined ? [] : await readIdentities(identity)
  const { openApi, AddedAuditor } = await import('../client.ts')
  const api = await openApi(options)
  const key = recipient ?? own?.recipient.text
  const added = await api.call(AddedAuditor, 'POST', '/auditors', { name, recipient: key })
  const sealed = Buffer.from(added.test, 'base64')
  if (own !== undefined) {
    const { openSealed } = await import('#audit')
    const secret = Buffer.from(openSealed(sealed, [own]).plain).toString()
    await sendConfirm(options, name, secret)
    return
  }
  if (test !== undefined) writeFileSync(test, sealed, { mode: 0o600 })
  tell(options, added, [
    `${name} is not confirmed yet: ${test ?? ''} is the test for the key`,
    `the auditor: sallyport audit auditor answer ${test ?? 'FILE'} --identity FILE, or age -d`,
    `then here: sallyport audit auditor confirm ${name} ANSWER`,
  ])
}

async function answer(
  test: string,
  flags: { readonly identity: string },
  command: Command,
): Promise<void> {
  const { AuditError, openSealed } = await import('#audit')
  const identities = await readIdentities(flags.identity)
  try {
    const secret = Buffer.from(openSealed(readFileSync(test), identities).plain).toString()
    tell(globalOptions(command), { answer: secret }, [secret])
  } catch (cause) {
    if (!(cause instanceof AuditError)) throw usage(`${test} cannot be read`, undefined, { cause })
    throw new CliError(
      'the test cannot be opened',
      { code: cause.code, exit: 'failed', why: cause.message },
      { cause },
    )
  }
}

async function confirm(
  name: string,
  secret: string,
  _flags: unknown,
  command: Command,
): Promise<void> {
  await sendConfirm(globalOptions(command), readName(name, 'auditor'), secret)
}

async function sendConfirm(options: GlobalOptions, name: string, secret: string): Promise<void> {
  const { openApi, Auditor } = await import('../client.ts')
  const api = await openApi(options)
  const auditor = await api.call(Auditor, 'POST', `/auditors/${name}/confirm`, { secret })
  tell(options, auditor, [`${name} can open what is recorded from now on: ${auditor.recipient}`])
}

async function list(_flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, Auditor: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/auditors')
  show(options, items, {
    head: ['name', 'state', 'since', 'by', 'key'],
    rows: items.map((one) => [one.name, one.state, instant(one.added_at), one.by, one.recipient]),
    empty: 'nobody can open recordings: sallyport audit auditor add',
  })
}

async function remove(name: string, _flags: unknown, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { openApi, Auditor } = await import('../client.ts')
  const api = await openApi(options)
  const gone = await api.call(Auditor, 'POST', `/auditors/${readName(name, 'auditor')}/remove`)
  tell(options, gone, [`nothing more is sealed to ${gone.recipient}`])
}

/** `sallyport ca`: making the CA, taking its root away, replacing its issuing CA, bringing another. Works on the data directory. */
import type { Command } from 'commander'
import type { CaStatus, GatewayArguments, Imported, Initiated } from '#gateway'
import { usage } from '../exit.ts'
import { readNewSecret, readSecret, readText } from '../input.ts'
import { facts, instant, layOut, note, say, tell } from '../print.ts'
import { globalOptions } from './options.ts'

/** As `gateway/keys/passphrase.ts` has it: said before anybody types a shorter one twice. */
const PASSPHRASE_LEAST = 12

interface Place {
  readonly data?: string
  readonly config?: string
}
const at = ({ data, config }: Place): GatewayArguments => ({
  dataDirectory: data,
  configFile: config,
})

export function registerCa(program: Command): void {
  const ca = program
    .command('ca')
    .description('the CA of a node: its keys, its issuing CAs, its root')
    .addHelpText(
      'after',
      `
init, status, rotate, export-root and import work on the data directory, on the machine of the
node; a running gateway takes each change over within seconds. revoke, crl and certificates ask
the gateway that you are signed in to (sallyport login).`,
    )
  const add = (name: string, description: string): Command =>
    ca
      .command(name)
      .description(description)
      .option('--data <dir>', 'data directory')
      .option('--config <file>', 'YAML configuration')
  add('init', 'make root and issuing CA, and take the root key off this node')
    .option('--root-to <file>', 'where the root key goes, sealed', 'sallyport-root-key.pem')
    .option(
      '--root-passphrase-file <file>',
      "what seals it; without one it is asked for, or is the node's",
    )
    .option('--keep-root', 'leave the root key on this node')
    .option('--subordinate', 'print a PKCS#10 request instead; ca import takes the answer')
    .action(init)
  add('status', 'issuers, their ends, where keys are, what is open').action(status)
  add('rotate', 'make the next issuing CA; it signs after one device lifetime')
    .option('--now', 'let it sign at once')
    .option('--root', 'make a new root as well, joined with the old one')
    .option('--root-key <file>', 'the root key as it was exported')
    .option('--root-passphrase-file <file>', 'what opens it')
    .action(rotate)
  add('export-root', 'write the root key out, verify the copy, take it off the node')
    .requiredOption('--to <file>', 'where to; keep it offline')
    .option(
      '--passphrase-file <file>',
      "what seals it; without one it is asked for, or is the node's",
    )
    .action(exportRoot)
  add('import', 'bring an issuing CA of another root')
    .requiredOption('--chain <file>', 'PEM: the issuing CA first, its root last')
    .option('--key <file>', 'its key; without one, the key that ca init --subordinate made')
    .option('--key-passphrase-file <file>', 'what opens that key')
    .option('--pkcs11 <label>', 'its key in the configured token')
    .option('--now', 'let it sign at once')
    .action(bring)
}

interface InitFlags extends Place {
  readonly rootTo: string
  readonly rootPassphraseFile?: string
  readonly keepRoot?: boolean
  readonly subordinate?: boolean
}

async function init(flags: InitFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { keepRoot = false, subordinate = false, rootTo: to, rootPassphraseFile: file } = flags
  if ((keepRoot || subordinate) && file !== undefined)
    throw usage(
      'a passphrase was given for a root key that stays where it is',
      'leave out either --root-passphrase-file or --keep-root and --subordinate',
    )
  if (subordinate) {
    await request(flags, command)
    return
  }
  const { caInit } = await import('#gateway')
  const passphrase = async () => await newPassphrase(file, 'root passphrase')
  const root = keepRoot ? null : { to, passphrase }
  const made = await caInit(at(flags), root)
  if (!options.json) for (const line of initLines(made)) say(line)
  print(command, made)
  if (!options.json) warn(made.exported?.warnings ?? [])
}

async function request(flags: Place, command: Command): Promise<void> {
  const { caRequest } = await import('#gateway')
  const csr = await caRequest(at(flags))
  tell(globalOptions(command), { csr }, [csr.trimEnd()])
  note(
    'next: have the CA above sign it, then bring its answer, the issuing CA first, its root last:',
  )
  note('  sallyport ca import --chain FILE')
}

function initLines({ exported }: Pick<Initiated, 'exported'>): string[] {
  if (exported === null) return []
  return [
    'the root key was written out, read back, and taken off this node',
    ...facts([
      ['file', exported.file],
      ['SHA-256', exported.sha256],
    ]),
    'next: put it on two media and lock them away; without it no issuing CA follows this one',
    '',
  ]
}

/** From the file, or asked for twice; undefined where there is neither file nor terminal. */
async function newPassphrase(file: string | undefined, what: string): Promise<string | undefined> {
  if (file === undefined && !process.stdin.isTTY) return undefined
  return await readNewSecret(file, what, PASSPHRASE_LEAST)
}

async function status(flags: Place, command: Command): Promise<void> {
  const { caStatus } = await import('#gateway')
  print(command, await caStatus(at(flags)))
}

function print(command: Command, ca: CaStatus): void {
  const options = globalOptions(command)
  tell(options, ca, options.json ? [] : statusLines(ca))
  if (!options.json) warn(ca.warnings)
}

function warn(warnings: readonly string[]): void {
  for (const warning of warnings) note(`warning: ${warning}`)
}

function statusLines(ca: CaStatus): string[] {
  const rows = [
    ...ca.roots.map((each) => [
      each.current ? 'root' : 'root, other',
      each.subject,
      instant(each.not_after),
      each.key,
    ]),
    ...ca.issuers.map((each) => [
      each.active_from === null ? each.state : `next, from ${instant(each.active_from)}`,
      each.subject,
      instant(each.not_after),
      each.key,
    ]),
  ]
  const [root] = ca.roots
  const counts = ca.certificates
  return [
    layOut({ head: ['state', 'subject', 'ends', 'key'], rows, empty: 'no certificate yet' }),
    ...facts([
      ['root SHA-256', root?.sha256],
      ['request to a CA above', ca.requested ? 'waits for its answer' : 'none'],
      ['certificates intended, not yet signed', counts?.intent],
      ['certificates active', counts?.active],
      ['certificates superseded', counts?.superseded],
      ['certificates revoked', counts?.revoked],
      ['changes that the log has yet to hear', ca.unlogged_acts],
    ]),
    ...(ca.requested
      ? ['next: bring the answer of the CA above: sallyport ca import --chain FILE']
      : []),
  ]
}

interface RotateFlags extends Place {
  readonly now?: boolean
  readonly root?: boolean
  readonly rootKey?: string
  readonly rootPassphraseFile?: string
}

async function rotate(flags: RotateFlags, command: Command): Promise<void> {
  const { caRotate } = await import('#gateway')
  const { rootKey: file, now, root } = flags
  const rootKey =
    file === undefined
      ? undefined
      : { file, passphrase: await readSecret(flags.rootPassphraseFile, 'root passphrase') }
  const made = await caRotate(at(flags), { now, root, rootKey })
  waits(command, made)
  if (root === true && !globalOptions(command).json)
    note('next: the new root key is on this node: sallyport ca export-root --to FILE')
}

function waits(
  command: Command,
  made: { readonly activeFrom: number; readonly certificate: string },
): void {
  const { activeFrom, certificate } = made
  const from = instant(Math.floor(activeFrom / 1000))
  const result = { certificate, active_from: Math.floor(activeFrom / 1000) }
  tell(globalOptions(command), result, [
    `${certificate} is served from now on and signs from ${from}`,
    'a running gateway takes this over within seconds; devices follow by themselves',
  ])
}

/** Nothing joins a root of others with the one that devices have pinned: they are told apart from a rotation. */
function brought(command: Command, made: Imported): void {
  const { activeFrom, certificate, strangeRoot } = made
  if (strangeRoot === null) return waits(command, made)
  const at = Math.floor(activeFrom / 1000)
  const result = { certificate, active_from: at, root_sha256: strangeRoot }
  const from = instant(at)
  tell(globalOptions(command), result, [
    `${certificate} is served from now on and signs from ${from}`,
    ...facts([['its root, SHA-256', strangeRoot]]),
    `devices, people and programs that have pinned another root cannot reach the gateway from ${from} on, and none follows by itself`,
    'next: each device enrols again then, with a new token (sallyport device token ID prints the command and the new pin)',
  ])
}

async function exportRoot(
  flags: Place & { to: string; passphraseFile?: string },
  command: Command,
): Promise<void> {
  const { caExportRoot } = await import('#gateway')
  const { to, passphraseFile: file } = flags
  const passphrase = async () => await newPassphrase(file, 'passphrase')
  const exported = await caExportRoot(at(flags), { to, passphrase })
  const lines = initLines({ exported }).slice(0, -1)
  tell(globalOptions(command), exported, lines)
  if (!globalOptions(command).json) warn(exported.warnings)
}

interface ImportFlags extends Place {
  readonly chain: string
  readonly key?: string
  readonly keyPassphraseFile?: string
  readonly pkcs11?: string
  readonly now?: boolean
}

async function bring(flags: ImportFlags, command: Command): Promise<void> {
  const { caImport } = await import('#gateway')
  const { key: file, keyPassphraseFile } = flags
  const passphrase =
    keyPassphraseFile === undefined
      ? undefined
      : await readSecret(keyPassphraseFile, 'key passphrase')
  const key = file === undefined ? undefined : { pem: readText(file, 'key'), passphrase }
  const chain = readText(flags.chain, 'chain')
  brought(
    command,
    await caImport(at(flags), { chain, key, pkcs11Label: flags.pkcs11, now: flags.now }),
  )
}

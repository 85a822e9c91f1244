/** `sallyport ca`: making the CA, taking its root away, replacing its issuing CA, bringing another. Works on the data directory. */
import type { Command } from 'commander'
import type { CaStatus, GatewayArguments } from '#gateway'
import { readSecret, readText } from '../input.ts'
import { facts, instant, layOut, note, say, tell } from '../print.ts'
import { globalOptions } from './options.ts'

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
  const add = (name: string, description: string): Command =>
    ca
      .command(name)
      .description(description)
      .option('--data <dir>', 'data directory')
      .option('--config <file>', 'YAML configuration')
  add('init', 'make root and issuing CA, or a request to a CA above')
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
    .option('--passphrase-file <file>', 'what seals the copy; without one, what seals the node')
    .action(exportRoot)
  add('import', 'bring an issuing CA of another root')
    .requiredOption('--chain <file>', 'PEM: the issuing CA first, its root last')
    .option('--key <file>', 'its key; without one, the key that ca init --subordinate made')
    .option('--key-passphrase-file <file>', 'what opens that key')
    .option('--pkcs11 <label>', 'its key in the configured token')
    .option('--now', 'let it sign at once')
    .action(bring)
}

async function init(flags: Place & { subordinate?: boolean }, command: Command): Promise<void> {
  const { caInit, caRequest } = await import('#gateway')
  const options = globalOptions(command)
  if (flags.subordinate === true) {
    const csr = await caRequest(at(flags))
    tell(options, { csr }, [csr.trimEnd()])
    return
  }
  print(command, await caInit(at(flags)))
}

async function status(flags: Place, command: Command): Promise<void> {
  const { caStatus } = await import('#gateway')
  print(command, await caStatus(at(flags)))
}

function print(command: Command, ca: CaStatus): void {
  const options = globalOptions(command)
  if (options.json) {
    say(JSON.stringify(ca))
    return
  }
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
  say(layOut({ head: ['state', 'subject', 'ends', 'key'], rows, empty: 'no certificate yet' }))
  const counts = ca.certificates
  const lines = facts([
    ['request to a CA above', ca.requested],
    ['open intentions', counts?.intent],
    ['active', counts?.active],
    ['superseded', counts?.superseded],
    ['revoked', counts?.revoked],
    ['acts not yet logged', ca.unlogged_acts],
  ])
  for (const line of lines) say(line)
  for (const warning of ca.warnings) note(`warning: ${warning}`)
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
}

function waits(
  command: Command,
  made: { readonly activeFrom: number; readonly certificate: string },
): void {
  const from = instant(Math.floor(made.activeFrom / 1000))
  tell(globalOptions(command), made, [
    `${made.certificate} is served from now on and signs from ${from}`,
    'a running gateway takes this over within seconds',
  ])
}

async function exportRoot(
  flags: Place & { to: string; passphraseFile?: string },
  command: Command,
): Promise<void> {
  const { caExportRoot } = await import('#gateway')
  const passphrase =
    flags.passphraseFile === undefined && !process.stdin.isTTY
      ? undefined
      : await readSecret(flags.passphraseFile, 'passphrase')
  const made = await caExportRoot(at(flags), flags.to, passphrase)
  tell(globalOptions(command), made, [
    'the root key was written, read back, and taken off this node',
    ...facts([
      ['file', made.file],
      ['SHA-256', made.sha256],
    ]),
  ])
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
  waits(
    command,
    await caImport(at(flags), { chain, key, pkcs11Label: flags.pkcs11, now: flags.now }),
  )
}

/** `sallyport rollout keygen|sign|verify`: what is done with the key that signs updates, on the machine that has it. */
import { execFile } from 'node:child_process'
import { createPrivateKey, generateKeyPairSync, hash, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import type { Command } from 'commander'
import { globalOptions } from './commands/options.ts'
import { CliError, usage } from './exit.ts'
import { readBytes, readDuration, readNewSecret, readSecret, readText } from './input.ts'
import { writeNew, writeOut } from './output.ts'
import { facts, instant, tell } from './print.ts'

/** The Node that the single file needs, docs/agent-build.md. */
const NODE = '26.10.0'
/** Any agent may take it. */
const FROM = '0.0.0'
const LIFETIME = '30d'
const HEALTH = '5m'
/** An agent that does not say its version by then will not start on a device either. */
const SAYS_MS = 60_000

export interface SignFlags {
  readonly key: string
  readonly out: string
  readonly for?: string
  readonly from?: string
  readonly node?: string
  readonly health?: string
  readonly passphraseFile?: string
}

export async function keygen(
  {
    out,
    passphraseFile,
    unsealed = false,
  }: { out: string; passphraseFile?: string; unsealed?: boolean },
  command: Command,
): Promise<void> {
  if (unsealed && passphraseFile !== undefined)
    throw usage('a passphrase for a key that is to stay unsealed', 'give one of the two')
  const passphrase = unsealed
    ? undefined
    : passphraseFile === undefined
      ? await readNewSecret(undefined, 'passphrase', 12)
      : await readSecret(passphraseFile, 'passphrase')
  const { updateKeyOf } = await import('#update')
  const { privateKey } = generateKeyPairSync('ed25519')
  const seal = passphrase === undefined ? {} : { cipher: 'aes-256-cbc', passphrase }
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem', ...seal }).toString()
  const own = updateKeyOf(privateKey)
  if (own === undefined) throw new Error('the key that was made is no Ed25519 key')
  writeNew(out, pem)
  const { word, id } = own
  tell(globalOptions(command), { key: out, public_key: word, key_id: id }, [
    ...facts([
      ['private key', out],
      ['public key', word],
      ['key id', id],
    ]),
    `keep the private key off every gateway; a device pins the public one: --update-key ${word}`,
  ])
}

export async function sign(path: string, flags: SignFlags, command: Command): Promise<void> {
  const bundle = readBytes(path, 'agent')
  const key = await openKey(flags.key, flags.passphraseFile)
  const version = await versionOf(path)
  const update = {
    version,
    sha256: hash('sha256', bundle, 'hex'),
    size: bundle.length,
    from: flags.from ?? FROM,
    node: flags.node ?? NODE,
    health: readDuration(flags.health ?? HEALTH),
    notAfter: Math.floor(Date.now() / 1000) + readDuration(flags.for ?? LIFETIME),
  }
  const { ManifestError, signUpdate, updateKeyOf } = await import('#update')
  let manifest: string
  try {
    manifest = signUpdate(update, key)
  } catch (error) {
    if (error instanceof ManifestError) throw usage(`nothing was signed: ${error.message}`)
    throw error
  }
  writeOut(flags.out, manifest)
  const keyId = updateKeyOf(key)?.id
  const { sha256, size, from, node, health, notAfter } = update
  const value = {
    file: flags.out,
    version,
    sha256,
    size,
    from,
    node,
    not_after: notAfter,
    key_id: keyId,
  }
  tell(globalOptions(command), value, [
    ...facts([
      ['signed', flags.out],
      ['version', version],
      ['sha256', sha256],
      ['size', size],
      ['for agents from', from],
      ['on Node from', node],
      ['healthy within', `${health} s`],
      ['until', instant(notAfter)],
      ['key id', keyId],
    ]),
  ])
}

export async function verify(
  manifest: string,
  { key: word, bundle }: { readonly key: string; readonly bundle?: string },
  command: Command,
): Promise<void> {
  const { isSigned, readManifest, readUpdateKey } = await import('#update')
  const key = readUpdateKey(word)
  if (key === undefined)
    throw usage(
      `${JSON.stringify(word)} is no update key`,
      'write it as keygen printed it: ed25519:…',
    )
  const text = readText(manifest, 'manifest')
  const read = readManifest(text)
  if (read === undefined)
    throw refused('update.manifest', `${manifest} is no manifest of an update`)
  if (!isSigned(text, [key]))
    throw refused(
      'update.signature',
      `${manifest} is not signed by ${key.id}, but says ${read.keyId}`,
    )
  const { version, sha256, size, from, node, notAfter } = read.update
  if (bundle !== undefined) {
    const bytes = readBytes(bundle, 'agent')
    if (bytes.length !== size || hash('sha256', bytes, 'hex') !== sha256)
      throw refused('update.bundle', `${bundle} is not what ${manifest} names`)
  }
  const value = { version, sha256, size, from, node, not_after: notAfter, key_id: key.id }
  tell(globalOptions(command), value, [
    `${manifest} is ${version}, signed by ${key.id}, until ${instant(notAfter)}`,
    ...(bundle === undefined ? [] : [`${bundle} is what it names`]),
  ])
}

function refused(code: string, message: string): CliError {
  return new CliError(message, { code, exit: 'failed', next: 'do not hand it out' })
}

async function openKey(path: string, file: string | undefined): Promise<KeyObject> {
  const pem = readText(path, 'update key')
  const sealed = pem.includes('ENCRYPTED') || file !== undefined
  const passphrase = sealed ? await readSecret(file, 'passphrase') : undefined
  let key: KeyObject
  try {
    key = createPrivateKey({ key: pem, ...(passphrase === undefined ? {} : { passphrase }) })
  } catch (cause) {
    throw usage(
      `${path} cannot be opened: ${cause instanceof Error ? cause.message : String(cause)}`,
      'give a PEM, and --passphrase-file where it is sealed; sallyport rollout keygen makes one',
    )
  }
  if (key.asymmetricKeyType === 'ed25519') return key
  throw usage(`${path} is no Ed25519 key`, 'sallyport rollout keygen makes one')
}

/** What an agent in one file says its version is. It is run for that: what does not start here is not signed. */
async function versionOf(path: string): Promise<string> {
  const { readVersion } = await import('#update')
  const next = 'give the single file that `npm run build:agent` made: sallyport-agent.cjs'
  let said: string
  try {
    const ran = await promisify(execFile)(process.execPath, [path, '--version'], {
      timeout: SAYS_MS,
    })
    said = ran.stdout.trim()
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw usage(`${path} does not run: ${why.split('\n')[0] ?? ''}`, next)
  }
  if (readVersion(said) !== undefined) return said
  throw usage(`${path} says no version of itself`, next)
}

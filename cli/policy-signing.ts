/** `sallyport policy keygen|sign|permit`: what is done with the key that signs bundles, on the machine that has it. */
import { existsSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { Gate } from '#policy-toolchain'
import { globalOptions } from './commands/options.ts'
import { Exited, usage } from './exit.ts'
import {
  readBytes,
  readDuration,
  readInteger,
  readNewSecret,
  readSecret,
  readText,
} from './input.ts'
import { writeOut } from './output.ts'
import { made, onTree, pass, waiting, withCompiler } from './policy-compiler.ts'
import { facts, instant, note, tell } from './print.ts'

export async function keygen(
  flags: { out: string; passphraseFile?: string; unsealed?: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { out, passphraseFile, unsealed = false } = flags
  if (unsealed && passphraseFile !== undefined)
    throw usage('a passphrase for a key that is to stay unsealed', 'give one of the two')
  for (const path of [out, `${out}.pub`])
    if (existsSync(path))
      throw usage(`${path} exists`, 'name another file; a key is never replaced')
  const passphrase = unsealed
    ? undefined
    : passphraseFile === undefined
      ? await readNewSecret(undefined, 'passphrase', 12)
      : await readSecret(passphraseFile, 'passphrase')
  const { newSigningKey } = await import('#policy-toolchain')
  const key = newSigningKey(passphrase)
  writeFileSync(out, key.privateKey, { mode: 0o600, flag: 'wx', flush: true })
  writeFileSync(`${out}.pub`, key.publicKey, { mode: 0o644, flag: 'wx', flush: true })
  tell(options, { key: out, public_key: `${out}.pub`, key_id: key.keyId }, [
    ...facts([
      ['private key', out],
      ['public key', `${out}.pub`],
      ['key id', key.keyId],
    ]),
    'keep the private key off every gateway; gateways are told the public one (policy.trust in the configuration)',
  ])
}

export async function sign(
  directory: string,
  flags: { key: string; seq: string; out: string; passphraseFile?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const seq = readInteger(flags.seq, 'sequence number', 1, 1_000_000_000)
  const pem = readText(flags.key, 'signing key')
  const passphrase = await opener(pem, flags.passphraseFile)
  const { room, opa } = await withCompiler()
  // The gates take minutes: whether the key opens is known before.
  room.signerId({ pem, passphrase })
  await onTree(room, directory, async (tree) => {
    const iat = Math.floor(Date.now() / 1000)
    const through = async (gates: AsyncIterable<Gate>): Promise<Gate[]> => {
      try {
        return await pass(gates, options, false)
      } catch (error) {
        if (error instanceof Exited) note('nothing was signed: mend what failed, and sign again')
        throw error
      }
    }
    const gates = await through(room.checkGates(tree, opa))
    const bundle = await made(room, opa, tree, iat)
    gates.push(...(await through(room.testGates(tree, opa, bundle, waiting(options)))))
    const release = room.signRelease(bundle.files, { pem, passphrase, seq, iat })
    writeOut(flags.out, release.archive)
    const { keyId, digest, files } = release
    const value = {
      file: flags.out,
      revision: bundle.about.revision,
      seq,
      key_id: keyId,
      sha256: digest,
      gates,
      files,
    }
    tell(options, value, [
      ...facts([
        ['signed', flags.out],
        ['revision', value.revision],
        ['seq', seq],
        ['key id', keyId],
        ['sha256', digest],
        ['files', files.length],
      ]),
      `next: sallyport policy push ${flags.out}`,
    ])
  })
}

export async function permit(
  bundle: string,
  flags: { key: string; over: string; for: string; out: string; passphraseFile?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const over = readInteger(flags.over, 'sequence number', 1, 1_000_000_000)
  const expiresAt = Math.floor(Date.now() / 1000) + readDuration(flags.for)
  const pem = readText(flags.key, 'signing key')
  const archive = readBytes(bundle, 'bundle')
  const passphrase = await opener(pem, flags.passphraseFile)
  const { permitFor } = await import('#policy-toolchain')
  const made = permitFor(archive, { over, expiresAt }, { pem, passphrase })
  if (made.seq >= over)
    throw usage(
      `the bundle is number ${made.seq}: it needs no permit over ${over}`,
      `sallyport policy push ${bundle}`,
    )
  writeOut(flags.out, Buffer.from(`${made.token}\n`))
  const { seq, digest, keyId } = made
  const value = { file: flags.out, seq, over, sha256: digest, key_id: keyId, expires_at: expiresAt }
  tell(options, value, [
    ...facts([
      ['permit', flags.out],
      ['goes back to', seq],
      ['over', over],
      ['sha256', digest],
      ['key id', keyId],
      ['until', instant(expiresAt)],
    ]),
    `next: sallyport policy push ${bundle} --permit ${flags.out}`,
  ])
}

async function opener(pem: string, file: string | undefined): Promise<string | undefined> {
  if (file !== undefined) return readSecret(file, 'passphrase')
  return pem.includes('ENCRYPTED') ? readSecret(undefined, 'passphrase') : undefined
}

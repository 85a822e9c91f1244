/** What `agent enroll` and `agent install` both take: who the device is, what stands behind it, and how it gets out. */
import type { Command } from 'commander'
import type { Setup } from '#agent'
import { wayOut } from '../way.ts'
import { collect } from './options.ts'

export interface SetupFlags {
  readonly gateway: string
  readonly otherGateway?: readonly string[]
  readonly device: string
  readonly tenant?: string
  readonly caSha256: string
  readonly target?: readonly string[]
  readonly consent?: readonly string[]
  readonly pkcs11Module?: string
  readonly pkcs11Uri?: string
  readonly pkcs11PinFile?: string
  readonly pkcs11Engine?: string
  readonly keyExchange?: string
}

/** Adds the options to a command, and gives it back. */
export function addSetupOptions(command: Command): Command {
  return command
    .requiredOption('--gateway <url>', 'https://HOST:PORT of the gateway')
    .option(
      '--other-gateway <host:port>',
      'dialled where the one before cannot be reached; may be repeated',
      collect,
    )
    .requiredOption('--device <id>', 'the id the device was created with')
    .option('--tenant <name>', 'the tenant, where it is not the default or the one it has')
    .requiredOption('--ca-sha256 <hex>', 'SHA-256 of the root certificate, as the gateway shows it')
    .option('--target <name=kind:address:port>', 'plc=tcp:127.0.0.1:1502; may be repeated', collect)
    .option(
      '--consent <name>',
      'sessions to this target wait for a yes here; may be repeated',
      collect,
    )
    .option('--pkcs11-module <file>', "the key is in a token: the token's library")
    .option('--pkcs11-uri <uri>', 'which key, as pkcs11:token=press-07;object=device')
    .option('--pkcs11-pin-file <file>', 'its PIN: one line, not readable by everybody')
    .option('--pkcs11-engine <file>', "OpenSSL's engine pkcs11.so, where it is not Debian's")
    .option('--key-exchange <how>', 'hybrid (default), or classical for old middleboxes')
}

/** The same as what #agent takes. */
export function setupOf(flags: SetupFlags): Setup {
  const { pkcs11Module, pkcs11Uri, pkcs11PinFile, pkcs11Engine } = flags
  const token = {
    ...(pkcs11Module === undefined ? {} : { module: pkcs11Module }),
    ...(pkcs11Uri === undefined ? {} : { uri: pkcs11Uri }),
    ...(pkcs11PinFile === undefined ? {} : { pin_file: pkcs11PinFile }),
    ...(pkcs11Engine === undefined ? {} : { engine: pkcs11Engine }),
  }
  return {
    gateway: flags.gateway,
    others: flags.otherGateway,
    device: flags.device,
    tenant: flags.tenant,
    rootSha256: flags.caSha256,
    targets: flags.target ?? [],
    consent: flags.consent ?? [],
    pkcs11: Object.keys(token).length === 0 ? undefined : token,
    keyExchange: flags.keyExchange,
    way: wayOut(),
  }
}

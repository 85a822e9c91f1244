/** `sallyport est`: the EST client against any EST server, ours or another's (RFC 7030). */
import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  X509Certificate,
  type KeyObject,
} from 'node:crypto'
import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import type * as estRoom from '#est'
import type { EstAnswer } from '#est'
import type { EstServer } from '../est.ts'
import { CliError, usage } from '../exit.ts'
import { readBytes, readPrivate, readSecret, readText } from '../input.ts'
import { writeNew, writeOut } from '../output.ts'
import { facts, instant, note, plain, tell } from '../print.ts'
import { collect, globalOptions } from './options.ts'

interface ServerFlags {
  readonly server: string
  readonly label?: string
  readonly ca?: string
  readonly caSha256?: string
}
interface EnrollFlags extends ServerFlags {
  readonly key: string
  readonly out: string
  readonly csr?: string
  readonly cn?: string
  readonly uri?: string[]
  readonly dns?: string[]
  readonly user?: string
  readonly passwordFile?: string
  readonly cert?: string
  readonly certKey?: string
  readonly link?: boolean
}
interface ReenrollFlags extends ServerFlags {
  readonly cert: string
  readonly key: string
  readonly newKey?: string
  readonly out: string
}

type Room = typeof estRoom
const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** Adds `sallyport est cacerts|csrattrs|enroll|reenroll`. */
export function registerEst(program: Command): void {
  const est = program.command('est').description('certificates over EST, from any EST server')
  const on = (name: string, description: string) =>
    est
      .command(name)
      .description(description)
      .requiredOption('--server <url>', 'https://HOST:PORT of the EST server')
      .option('--label <name>', 'the label in its paths')
      .option('--ca <file>', 'PEM of the roots to trust')
      .option('--ca-sha256 <hex>', 'SHA-256 of its root, where --ca is not at hand')
  on('cacerts', 'fetch the CA certificates; without --ca or --ca-sha256 only their fingerprints')
    .option('--out <file>', 'where to write them as PEM')
    .action(cacerts)
  on('csrattrs', 'what the server wants a request to hold').action(csrattrs)
  on('enroll', 'get a first certificate, by password or by a certificate of another CA')
    .requiredOption('--key <file>', 'PEM of the key; made (P-256, 0600) where there is none')
    .requiredOption('--out <file>', 'where to write the certificate')
    .option('--csr <file>', 'send this request instead of making one')
    .option('--cn <name>', 'common name of the request')
    .option('--uri <uri>', 'a URI name; may be repeated', collect)
    .option('--dns <name>', 'a DNS name; may be repeated', collect)
    .option('--user <name>', 'user name of HTTP Basic, where the server wants one')
    .option('--password-file <file>', 'its password, or the token; - reads stdin')
    .option('--cert <file>', 'certificate to present, such as the one the maker put in')
    .option('--cert-key <file>', 'its key')
    .option('--link', 'tie the request to the connection even where the server does not ask')
    .action(enroll)
  on('reenroll', 'renew a certificate with the one before')
    .requiredOption('--cert <file>', 'the certificate to renew')
    .requiredOption('--key <file>', 'its key')
    .option('--new-key <file>', 'certify this key instead; made where there is none')
    .requiredOption('--out <file>', 'where to write the new certificate')
    .action(reenroll)
}

/** Does `work`; what the server refuses becomes a command's error, with its code and next step. */
async function withRoom<T>(work: (room: Room) => Promise<T>): Promise<T> {
  const room = await import('#est')
  try {
    return await work(room)
  } catch (error) {
    if (!(error instanceof room.EstError)) throw error
    const refused = error.status === 401 || error.status === 403
    throw new CliError(
      `the EST server ${error.code === 'server' ? 'refused' : 'gave an answer that cannot be used'}`,
      {
        code: error.serverCode ?? error.code,
        exit: refused ? 'denied' : 'failed',
        why: error.message,
        next: refused ? 'check the credential, or ask the operator of the server' : undefined,
      },
      { cause: error },
    )
  }
}

async function trusted(flags: ServerFlags): Promise<EstServer> {
  const { readGateway, fetchAnchor } = await import('../anchor.ts')
  const url = readGateway(flags.server)
  if (flags.ca !== undefined) return { url, anchors: readText(flags.ca, 'roots') }
  if (flags.caSha256 !== undefined) return { url, anchors: await fetchAnchor(url, flags.caSha256) }
  throw usage(
    'nothing says which server is the right one',
    'give --ca FILE, or --ca-sha256 with the fingerprint that its operator told you',
  )
}

/** The key in `file`, made there when the file is missing: on disk before anybody certifies it. */
function keyIn(file: string): KeyObject {
  if (!existsSync(file)) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
    writeNew(file, pem)
    return privateKey
  }
  const pem = readPrivate(file, 'key')
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    const next = 'name another file: where there is none, a key is made'
    throw usage(`${file} holds no private key that can be read`, next, { cause })
  }
}

function derOf(pem: string): Uint8Array | undefined {
  try {
    return new Uint8Array(new X509Certificate(pem).raw)
  } catch {
    // OpenSSL's words help nobody here: the caller names the file.
    return undefined
  }
}

const pemOf = (der: Uint8Array): string => new X509Certificate(Buffer.from(der)).toString()
/** Epoch seconds. */
const endOf = ({ validToDate }: X509Certificate) => Math.floor(validToDate.getTime() / 1000)
const sha256 = (der: Uint8Array): string => createHash('sha256').update(der).digest('hex')

async function cacerts(flags: ServerFlags & { out?: string }, command: Command): Promise<void> {
  await withRoom(async (room) => {
    const anonymous = flags.ca === undefined && flags.caSha256 === undefined
    if (anonymous && flags.out !== undefined)
      throw usage('certificates of an unknown server are not kept', 'give --ca or --ca-sha256')
    const { readGateway } = await import('../anchor.ts')
    const { estExchange } = await import('../est.ts')
    const server = anonymous ? { url: readGateway(flags.server) } : await trusted(flags)
    const answer = room.readCertificates(
      await estExchange(server, () => room.cacertsRequest(flags.label)),
    )
    const list = answer.kind === 'certificates' ? answer.certificates : []
    if (flags.out !== undefined) writeOut(flags.out, list.map(pemOf).join(''))
    const rows = list.map((der) => {
      const x509 = new X509Certificate(Buffer.from(der))
      const subject = x509.subject.replaceAll('\n', ', ')
      return { subject, sha256: sha256(der), not_after: endOf(x509) }
    })
    const lines = rows.map(
      (row) => `${row.sha256}  ${plain(row.subject)} (until ${instant(row.not_after)})`,
    )
    tell(globalOptions(command), rows, lines)
    if (anonymous) note('nothing was verified: compare the first fingerprint with its operator')
  })
}

/** What people call the identifiers that stand in csrattrs; any other is shown as it is. */
const SPOKEN: Readonly<Record<string, string>> = {
  '1.2.840.10045.2.1': 'EC',
  '1.2.840.10045.3.1.7': 'P-256',
  '1.3.132.0.34': 'P-384',
  '1.3.101.112': 'Ed25519',
  '1.2.840.113549.1.1.1': 'RSA',
  '1.2.840.10045.4.3.2': 'ECDSA with SHA-256',
  '1.2.840.10045.4.3.3': 'ECDSA with SHA-384',
  '1.2.840.113549.1.1.11': 'RSA with SHA-256',
  '1.2.840.113549.1.9.7': 'challengePassword',
  '1.2.840.113549.1.9.14': 'extensionRequest',
  '1.2.840.113549.1.9.16.2.61': 'template',
}
function spoken(identifier: string | number | null | undefined): string | undefined {
  if (identifier === undefined || identifier === null) return undefined
  return SPOKEN[String(identifier)] ?? String(identifier)
}

async function csrattrs(flags: ServerFlags, command: Command): Promise<void> {
  await withRoom(async (room) => {
    const { estExchange } = await import('../est.ts')
    const server = await trusted(flags)
    const wishes = room.readCsrAttributes(
      await estExchange(server, () => room.csrattrsRequest(flags.label)),
    )
    const lines =
      wishes === undefined
        ? ['the server asks for nothing in particular']
        : facts([
            ['key', spoken(wishes.key?.algorithm)],
            ['curve or bits', spoken(wishes.key?.parameter)],
            ['tied to the connection', wishes.challengePassword],
            ['template', wishes.template],
            ['all of it', wishes.all.map(spoken).join(', ')],
          ])
    const value = wishes === undefined ? null : { ...wishes, challengePassword: undefined }
    const linking = wishes?.challengePassword
    tell(globalOptions(command), value && { ...value, linking }, lines)
  })
}

async function enroll(flags: EnrollFlags, command: Command): Promise<void> {
  await withRoom(async (room) => {
    const { estExchange } = await import('../est.ts')
    if ((flags.cert === undefined) !== (flags.certKey === undefined))
      throw usage('--cert and --cert-key go together', 'give both, or neither')
    const password =
      flags.passwordFile === undefined
        ? undefined
        : await readSecret(flags.passwordFile, 'password')
    const base = await trusted(flags)
    const server: EstServer = {
      ...base,
      certificate: flags.cert === undefined ? undefined : readText(flags.cert, 'certificate'),
      key: flags.certKey === undefined ? undefined : readPrivate(flags.certKey, 'key'),
    }
    const key = keyIn(flags.key)
    const wishes = room.readCsrAttributes(
      await estExchange(base, () => room.csrattrsRequest(flags.label)),
    )
    const link = flags.link === true || wishes?.challengePassword === true
    const label = flags.label === undefined ? {} : { label: flags.label }
    const user = flags.user === undefined ? {} : { user: flags.user }
    const answer = await estExchange(server, (binding) => {
      const csr = requestOf(room, flags, key, link ? binding : undefined)
      return password === undefined
        ? room.introduceRequest({ csr, ...label })
        : room.enrollRequest({ csr, token: password, ...user, ...label })
    })
    keep(room.readCertificates(answer), key, flags.out, command)
  })
}

function requestOf(room: Room, flags: EnrollFlags, key: KeyObject, binding?: string): Uint8Array {
  if (flags.csr === undefined) {
    const names = { uris: flags.uri ?? [], dnsNames: flags.dns ?? [] }
    const subject = flags.cn === undefined ? {} : { commonName: flags.cn }
    return room.createPlainCsr(key, { ...subject, ...names }, binding)
  }
  const file = readBytes(flags.csr, 'request')
  const pem = /-----BEGIN[^-]+-----([^-]+)-----END/.exec(file.toString('latin1'))?.[1]
  return pem === undefined ? file : Buffer.from(pem, 'base64')
}

async function reenroll(flags: ReenrollFlags, command: Command): Promise<void> {
  await withRoom(async (room) => {
    const { estExchange } = await import('../est.ts')
    const base = await trusted(flags)
    const old = readText(flags.cert, 'certificate')
    const [leaf] = old.match(PEM) ?? []
    const der = leaf === undefined ? undefined : derOf(leaf)
    if (der === undefined)
      throw usage(`${flags.cert} holds no certificate`, 'give the one to renew, as PEM')
    const key = flags.newKey === undefined ? keyIn(flags.key) : keyIn(flags.newKey)
    const label = flags.label === undefined ? {} : { label: flags.label }
    const server = { ...base, certificate: old, key: readPrivate(flags.key, 'key') }
    const wishes = room.readCsrAttributes(
      await estExchange(base, () => room.csrattrsRequest(flags.label)),
    )
    const answer = await estExchange(server, (binding) => {
      const linked = wishes?.challengePassword === true ? binding : undefined
      return room.reenrollRequest({ csr: room.createRenewalCsr(key, der, linked), ...label })
    })
    keep(room.readCertificates(answer), key, flags.out, command)
  })
}

/** Writes the certificate for `key`; a server that wants a person first is told as such. */
function keep(answer: EstAnswer, key: KeyObject, file: string, command: Command): void {
  if (answer.kind === 'pending')
    throw new CliError('the server wants a person to approve this first', {
      code: 'enrol.pending',
      exit: 'denied',
      next: `run the same command again in ${answer.retryAfterSeconds} s or later, with the same key`,
    })
  const own = answer.certificates.find((der) =>
    new X509Certificate(Buffer.from(der)).checkPrivateKey(key),
  )
  if (own === undefined)
    throw new CliError('the server certified another key', {
      code: 'certificate.key',
      exit: 'failed',
    })
  const rest = answer.certificates.filter((der) => der !== own)
  writeOut(file, [own, ...rest].map(pemOf).join(''))
  const x509 = new X509Certificate(Buffer.from(own))
  const { subject, subjectAltName, serialNumber } = x509
  const value = { serial: serialNumber.toLowerCase(), subject, not_after: endOf(x509), file }
  tell(globalOptions(command), value, [
    ...facts([
      ['serial', value.serial],
      ['subject', subject.replaceAll('\n', ', ')],
      ['names', subjectAltName],
      ['until', instant(value.not_after)],
    ]),
    `written to ${file}`,
  ])
}

/**
 * What a login leaves on the machine: one file per gateway, 0600 in a directory 0700, written whole or not at
 * all. It holds a refresh token and the private key that both tokens are bound to: a token without the key opens nothing.
 */
import { randomBytes } from 'node:crypto'
import {
  chmod,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { CliError } from '../exit.ts'

export interface Credentials {
  readonly v: 1
  /** Origin of the gateway: `https://<host>:<port>`. */
  readonly gateway: string
  readonly issuer: string
  readonly clientId: string
  /** The audience of the access token: origin and `/api`. */
  readonly resource: string
  /** PEM of the gateway's root; no other is trusted. */
  readonly anchor: string
  readonly accessToken: string
  readonly refreshToken: string
  /** Epoch milliseconds at which the access token ends. */
  readonly expiresAt: number
  /** The `sub` of the person. */
  readonly subject: string
  /** How far the gateway's clock was ahead of ours, in seconds. */
  readonly clockSkew: number
  readonly key: PrivateKey
}

/** RFC 7517: a P-256 private key. */
export interface PrivateKey {
  readonly kty: 'EC'
  readonly crv: 'P-256'
  readonly x: string
  readonly y: string
  readonly d: string
}

/** Where credentials are kept: `SALLYPORT_HOME`, else `sallyport` under the XDG configuration directory. */
export function credentialsDirectory(
  environment: Readonly<Record<string, string | undefined>>,
): string {
  const own = environment['SALLYPORT_HOME']
  if (own !== undefined && own !== '') return join(own, 'credentials')
  const xdg = environment['XDG_CONFIG_HOME']
  const config = xdg !== undefined && xdg.startsWith('/') ? xdg : join(homedir(), '.config')
  return join(config, 'sallyport', 'credentials')
}

const LAST = 'last'

/** `https://gate.example:8443` is kept as `gate.example_8443.json`. */
function fileOf(gateway: string): string {
  const { hostname, port } = new URL(gateway)
  const host = hostname.replace(/[^a-z0-9.-]/gi, '-')
  return `${host}_${port === '' ? '443' : port}.json`
}

/** Proves that a login can be kept there, before somebody is asked for one. Throws CliError `credentials.unwritable`. */
export async function prepareDirectory(directory: string): Promise<void> {
  const proof = join(directory, `.proof.${randomBytes(6).toString('hex')}`)
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await writeFile(proof, '', { flag: 'wx', mode: 0o600 })
    await rm(proof)
  } catch (cause) {
    throw new CliError(
      'a login cannot be kept here',
      {
        code: 'credentials.unwritable',
        exit: 'failed',
        why: cause instanceof Error ? cause.message : String(cause),
        next: 'make that folder yours to write, or name another one in SALLYPORT_HOME',
      },
      { cause },
    )
  }
}

/** Keeps them, and makes their gateway the one that commands use when none is named. */
export async function saveCredentials(directory: string, credentials: Credentials): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await chmod(directory, 0o700)
  const file = fileOf(credentials.gateway)
  await write(directory, file, `${JSON.stringify(credentials, null, 2)}\n`)
  await write(directory, LAST, `${file}\n`)
}

async function write(directory: string, name: string, text: string): Promise<void> {
  const temporary = join(directory, `.${name}.${randomBytes(6).toString('hex')}`)
  {
    await using file = await open(temporary, 'wx', 0o600)
    await file.writeFile(text)
    await file.sync()
  }
  await rename(temporary, join(directory, name))
}

/**
 * The credentials for a gateway, or those of the last login when none is named; undefined: not signed in.
 * Throws CliError `credentials.permissions` (others may read the file) and `credentials.malformed`.
 */
export async function loadCredentials(
  directory: string,
  gateway?: string,
): Promise<Credentials | undefined> {
  const name = gateway === undefined ? (await read(join(directory, LAST)))?.trim() : fileOf(gateway)
  if (name === undefined || !/^[a-z0-9.-]+_\d{1,5}\.json$/i.test(name)) return undefined
  const path = join(directory, name)
  const text = await read(path)
  if (text === undefined) return undefined
  if (((await stat(path)).mode & 0o077) !== 0)
    throw new CliError('the kept login may be read by others', {
      code: 'credentials.permissions',
      exit: 'unauthenticated',
      why: `${name} is not 0600`,
      next: 'sign in again: sallyport login; then end the old login in the list of your logins',
    })
  const credentials = parse(text)
  if (credentials !== undefined && fileOf(credentials.gateway) === name) return credentials
  throw new CliError('the kept login cannot be read', {
    code: 'credentials.malformed',
    exit: 'unauthenticated',
    why: `${name} is not what \`sallyport login\` writes`,
    next: 'sign in again: sallyport login',
  })
}

/** The gateways that there are credentials for. */
export async function listCredentials(directory: string): Promise<readonly string[]> {
  const names = await readdir(directory).catch(() => [])
  const kept = names.filter((name) => /^[^.].*_\d{1,5}\.json$/.test(name)).toSorted()
  const texts = await Promise.all(kept.map(async (name) => read(join(directory, name))))
  return texts
    .map((text) => (text === undefined ? undefined : parse(text)?.gateway))
    .filter((gateway) => gateway !== undefined)
}

/** Forgets them; not an error if there are none. */
export async function removeCredentials(directory: string, gateway: string): Promise<void> {
  const file = fileOf(gateway)
  await rm(join(directory, file), { force: true })
  if ((await read(join(directory, LAST)))?.trim() === file)
    await rm(join(directory, LAST), { force: true })
}

async function read(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

const TEXTS = [
  'gateway',
  'issuer',
  'clientId',
  'resource',
  'anchor',
  'accessToken',
  'refreshToken',
  'subject',
] as const

type Members = Readonly<Partial<Record<string, unknown>>>

function members(value: unknown): Members {
  return typeof value === 'object' && value !== null ? (value as Members) : {}
}

function parse(text: string): Credentials | undefined {
  try {
    const value = members(JSON.parse(text))
    const key = members(value['key'])
    const checks = [
      value['v'] === 1,
      TEXTS.every((name) => typeof value[name] === 'string'),
      ['expiresAt', 'clockSkew'].every((name) => Number.isFinite(value[name])),
      key['kty'] === 'EC' && key['crv'] === 'P-256',
      ['x', 'y', 'd'].every((name) => typeof key[name] === 'string'),
      URL.canParse(String(value['gateway'])),
    ]
    return checks.every(Boolean) ? (value as unknown as Credentials) : undefined
  } catch {
    return undefined
  }
}

/**
 * Signing in as a program: a file holds who it is and the private key that it signs with (RFC 7523); tokens are bound to
 * another key, made for each run, and kept nowhere. Neither stands on a command line.
 */
import { open, readFile, stat } from 'node:fs/promises'
import * as oidc from 'openid-client'
import { unreachable } from '../anchor.ts'
import { CliError } from '../exit.ts'
import type { Credentials, PrivateKey } from './credentials.ts'
import { discover, importKey, makeKey } from './device.ts'
import { authorizedFetch, type AuthorizedFetch } from './request.ts'
import type { PinnedHttp } from './tls.ts'

export interface ServiceFile {
  readonly v: 1
  /** Its id at the gateway. */
  readonly service: string
  /** Origin of the gateway. */
  readonly gateway: string
  /** PEM of the gateway's root; no other is trusted. */
  readonly anchor: string
  readonly key: PrivateKey
}

/** Writes it, 0600, where there is no file yet. Throws CliError `service.file`. */
export async function saveServiceFile(path: string, service: ServiceFile): Promise<void> {
  try {
    await using file = await open(path, 'wx', 0o600)
    await file.writeFile(`${JSON.stringify(service, null, 2)}\n`)
    await file.sync()
  } catch (cause) {
    throw refused(`${path} cannot be written: ${said(cause)}`, 'name a file that is not there yet')
  }
}

/** Throws CliError `service.file`: not there, readable by others, or not such a file. */
export async function loadServiceFile(path: string): Promise<ServiceFile> {
  const next = 'make one: sallyport service add NAME --out FILE'
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw refused(`${path} cannot be read: ${said(cause)}`, next)
  })
  if (((await stat(path)).mode & 0o077) !== 0)
    throw refused(`${path} may be read by others`, 'revoke that service, and make another')
  const service = parse(text)
  if (service === undefined) throw refused(`${path} is not what \`service add\` writes`, next)
  return service
}

/** As `authorizedFetch`, in the name of the service; the first call asks for a token. */
export async function serviceFetch(service: ServiceFile): Promise<AuthorizedFetch> {
  const { gateway, anchor, service: clientId } = service
  const credentials: Credentials = {
    v: 1,
    gateway,
    issuer: `${gateway}/oidc`,
    clientId,
    resource: `${gateway}/api`,
    anchor,
    accessToken: '',
    refreshToken: '',
    expiresAt: 0,
    subject: clientId,
    clockSkew: 0,
    key: await makeKey(),
  }
  return authorizedFetch(credentials, {
    renew: async (current, http) => renewed(service, current, http),
  })
}

async function renewed(
  service: ServiceFile,
  current: Credentials,
  http: PinnedHttp,
): Promise<Credentials> {
  const { issuer, clientId, resource, gateway } = current
  try {
    const { privateKey } = await importKey(service.key)
    const client = await discover(issuer, clientId, http, oidc.PrivateKeyJwt(privateKey))
    const DPoP = oidc.getDPoPHandle(client, await importKey(current.key))
    const tokens = await oidc.clientCredentialsGrant(client, { scope: 'api', resource }, { DPoP })
    return {
      ...current,
      accessToken: tokens.access_token,
      expiresAt: Date.now() + (tokens.expires_in ?? 0) * 1000,
      clockSkew: http.clockSkew(),
    }
  } catch (cause) {
    if (!(cause instanceof oidc.ResponseBodyError)) throw unreachable(new URL(gateway), cause)
    if (cause.status === 429)
      throw new CliError(
        'too many tokens were asked for in the name of this service, or from this address',
        {
          code: 'service.limit',
          exit: 'failed',
          next: `wait ${waitOf(cause.response)}; run several commands in one program, which needs one token for all`,
        },
        { cause },
      )
    throw new CliError(
      'the gateway does not take this service',
      {
        code: 'service.refused',
        exit: 'unauthenticated',
        why: cause.error_description ?? cause.error,
        next: 'an administrator sees whether it stands: sallyport service list',
      },
      { cause },
    )
  }
}

/** As long as the gateway says. */
function waitOf({ headers }: Response): string {
  const seconds = Number(headers.get('retry-after'))
  if (!(seconds > 0)) return 'a minute'
  return seconds > 90 ? `${Math.ceil(seconds / 60)} minutes` : `${seconds} seconds`
}

function parse(text: string): ServiceFile | undefined {
  try {
    const value = JSON.parse(text) as Partial<ServiceFile> | null
    const key: Partial<PrivateKey> = value?.key ?? {}
    const checks = [
      value?.v === 1,
      /^v_[0-9a-z]{26}$/.test(value?.service ?? ''),
      typeof value?.anchor === 'string',
      URL.parse(value?.gateway ?? '')?.origin === value?.gateway,
      key.kty === 'EC' && key.crv === 'P-256',
      [key.x, key.y, key.d].every((part) => typeof part === 'string'),
    ]
    return checks.every(Boolean) ? (value as ServiceFile) : undefined
  } catch {
    return undefined
  }
}

const said = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

function refused(why: string, next: string): CliError {
  const facts = { code: 'service.file', exit: 'unauthenticated', why, next } as const
  return new CliError('the file of the service cannot be used', facts)
}

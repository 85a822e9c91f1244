/** The way out of the plant's network: which carrier, and through which proxy. */
import { readFileSync, statSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { readAnchor, readProxy, readProxyLogin } from '#tunnel'
import type { Proxy } from '#tunnel'
import { At } from './at.ts'
import { AgentError, messageOf } from './errors.ts'

/** What the tunnel travels in: TLS with its own ALPN name, or WebSocket in HTTPS where nothing else passes. */
export type Carrier = 'tls' | 'websocket'

/** A proxy, and the files with its login and with the authority of its certificate, which are read at each dialling. */
export interface ProxySetting {
  readonly url: string
  readonly authFile: string | undefined
  readonly caFile: string | undefined
}

/** The part of a config that says it. */
export interface WayOut {
  readonly carrier: Carrier
  readonly proxy: ProxySetting | undefined
}

/** How to get out, as a command line or an environment says it; what is absent is left as it is. */
export interface Way {
  readonly carrier?: string | undefined
  readonly proxy?: string | undefined
  /** Absolute path of a file with one line `user:password`. */
  readonly proxyAuthFile?: string | undefined
  /** Absolute path of a PEM file, of an `https://` proxy. */
  readonly proxyCaFile?: string | undefined
}

/** Throws AgentError `config.invalid`. */
export function carrierOf(at: At): Carrier {
  if (at.value === undefined) return 'tls'
  if (at.value !== 'tls' && at.value !== 'websocket')
    throw at.fail('"tls" or "websocket" is expected')
  return at.value
}

/** `file`: the one with the login; `ca`: the one with the authority. Throws AgentError `config.invalid`. */
export function proxyOf(at: At, file: At, ca: At): ProxySetting | undefined {
  if (at.value === undefined) {
    for (const one of [file, ca])
      if (one.value !== undefined) throw one.fail('there is no proxy that it could be for')
    return undefined
  }
  if (typeof at.value !== 'string') throw at.fail('a URL is expected')
  const read = readProxy(at.value)
  if (typeof read === 'string') throw at.fail(read)
  const caFile = pathOf(ca)
  // Whoever names an authority must not find that nobody is held to it.
  if (caFile !== undefined && read.scheme !== 'https')
    throw ca.fail('the proxy is not reached over TLS: https://… is')
  return { url: at.value, authFile: pathOf(file), caFile }
}

function pathOf(at: At): string | undefined {
  const { value } = at
  if (value === undefined || (typeof value === 'string' && isAbsolute(value))) return value
  throw at.fail('the absolute path of a file is expected')
}

/** `config` with another way out. Throws AgentError `config.invalid` naming the setting. */
export function withWay<C extends WayOut>(config: C, way: Way): C {
  const at = (name: string, value: unknown) => new At('environment', name, value)
  const { carrier, proxy, proxyAuthFile, proxyCaFile } = way
  const before = proxy === undefined ? config.proxy : undefined
  const file = at('SALLYPORT_PROXY_AUTH_FILE', proxyAuthFile ?? before?.authFile)
  const ca = at('SALLYPORT_PROXY_CA_FILE', proxyCaFile ?? before?.caFile)
  return {
    ...config,
    carrier: carrier === undefined ? config.carrier : carrierOf(at('SALLYPORT_CARRIER', carrier)),
    proxy: proxyOf(at('SALLYPORT_PROXY', proxy ?? config.proxy?.url), file, ca),
  }
}

/**
 * The proxy of a setting with what its files hold, read now, so that a changed password or authority needs no
 * restart. Throws AgentError `proxy.secret`, `proxy.ca_file`.
 */
export function openProxy(setting: ProxySetting | undefined): Proxy | undefined {
  if (setting === undefined) return undefined
  const read = readProxy(setting.url)
  // It was read once before it became a setting.
  if (typeof read === 'string') throw new AgentError('config.invalid', read, 'Correct the proxy.')
  const { caFile } = setting
  const proxy = caFile === undefined ? read : { ...read, anchor: anchorIn(caFile) }
  if (setting.authFile === undefined) return proxy
  let text: string
  try {
    if ((statSync(setting.authFile).mode & 0o007) !== 0)
      throw new Error('every user of this machine may use it')
    text = readFileSync(setting.authFile, 'utf8')
  } catch (error) {
    throw proxySecret(setting.authFile, messageOf(error), error)
  }
  const login = readProxyLogin(text)
  if (typeof login === 'string') throw proxySecret(setting.authFile, login)
  return { ...proxy, login }
}

/** Throws AgentError `proxy.ca_file`. */
function anchorIn(file: string): string {
  const unusable = (why: string, cause?: unknown) =>
    new AgentError(
      'proxy.ca_file',
      `The proxy's CA file ${file} cannot be used: ${why}.`,
      'Make it the PEM of the authority that signs the certificate of the proxy, readable by the agent.',
      { cause },
    )
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw unusable(messageOf(error), error)
  }
  // Without one in it nobody would be held to it.
  const found = readAnchor(text)
  if (found === undefined) throw unusable('there is no certificate in it')
  return found
}

function proxySecret(file: string, why: string, cause?: unknown): AgentError {
  return new AgentError(
    'proxy.secret',
    `The proxy's auth file ${file} cannot be used: ${why}.`,
    'Make it one line "user:password", readable by the agent and not by everybody (chmod 0640).',
    { cause },
  )
}

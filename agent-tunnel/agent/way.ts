/** The way out of the plant's network: which carrier, and through which proxy. */
import { readFileSync, statSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { readProxy, readProxyLogin } from '#tunnel'
import type { Proxy } from '#tunnel'
import { At } from './at.ts'
import { AgentError, messageOf } from './errors.ts'

/** What the tunnel travels in: TLS with its own ALPN name, or WebSocket in HTTPS where nothing else passes. */
export type Carrier = 'tls' | 'websocket'

/** A proxy, and the file with its login, which is read at each dialling. */
export interface ProxySetting {
  readonly url: string
  readonly authFile: string | undefined
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
}

/** Throws AgentError `config.invalid`. */
export function carrierOf(at: At): Carrier {
  if (at.value === undefined) return 'tls'
  if (at.value !== 'tls' && at.value !== 'websocket')
    throw at.fail('"tls" or "websocket" is expected')
  return at.value
}

/** `file`: the one with the login. Throws AgentError `config.invalid`. */
export function proxyOf(at: At, file: At): ProxySetting | undefined {
  if (at.value === undefined) {
    if (file.value !== undefined) throw file.fail('there is no proxy that it could be for')
    return undefined
  }
  if (typeof at.value !== 'string') throw at.fail('a URL is expected')
  const read = readProxy(at.value)
  if (typeof read === 'string') throw at.fail(read)
  if (file.value !== undefined && (typeof file.value !== 'string' || !isAbsolute(file.value)))
    throw file.fail('the absolute path of a file is expected')
  return { url: at.value, authFile: file.value }
}

/** `config` with another way out. Throws AgentError `config.invalid` naming the setting. */
export function withWay<C extends WayOut>(config: C, way: Way): C {
  const at = (name: string, value: unknown) => new At('environment', name, value)
  const { carrier, proxy, proxyAuthFile } = way
  const file = at(
    'SALLYPORT_PROXY_AUTH_FILE',
    proxyAuthFile ?? (proxy === undefined ? config.proxy?.authFile : undefined),
  )
  return {
    ...config,
    carrier: carrier === undefined ? config.carrier : carrierOf(at('SALLYPORT_CARRIER', carrier)),
    proxy: proxyOf(at('SALLYPORT_PROXY', proxy ?? config.proxy?.url), file),
  }
}

/**
 * The proxy of a setting with the login in its file, read now, so that a changed password needs no
 * restart. Throws AgentError `proxy.secret`.
 */
export function openProxy(setting: ProxySetting | undefined): Proxy | undefined {
  if (setting === undefined) return undefined
  const proxy = readProxy(setting.url)
  // It was read once before it became a setting.
  if (typeof proxy === 'string') throw new AgentError('config.invalid', proxy, 'Correct the proxy.')
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

function proxySecret(file: string, why: string, cause?: unknown): AgentError {
  return new AgentError(
    'proxy.secret',
    `The proxy's auth file ${file} cannot be used: ${why}.`,
    'Make it one line "user:password", readable by the agent and not by everybody (chmod 0640).',
    { cause },
  )
}

/**
 * TLS to a proxy that takes it, before it is asked for anything: the question and the login go to whoever holds the
 * proxy's name, or nowhere. What travels through is TLS of its own, inside this.
 */
import { once } from 'node:events'
import { isIP, type Socket } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import { printAddress, ProxyError, type Proxy } from './proxy.ts'

/** What OpenSSL and Node call a certificate that is not taken. */
const UNTRUSTED = /^(?:CERT_|CRL_|DEPTH_|SELF_SIGNED|UNABLE_TO|INVALID_|HOSTNAME_|ERR_TLS_CERT_)/
/** And one whose time it is not, by this machine's clock. */
const CLOCK: ReadonlySet<string> = new Set(['CERT_NOT_YET_VALID', 'CERT_HAS_EXPIRED'])

/**
 * Resolves when the proxy has proven its name under its anchor (absent: the authorities that Node brings). Rejects with
 * ProxyError `proxy.untrusted` or `proxy.answer`, or with the signal's reason.
 */
export async function sealed(raw: Socket, proxy: Proxy, signal: AbortSignal): Promise<TLSSocket> {
  const { host, anchor } = proxy
  const socket = connect({
    socket: raw,
    host,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(anchor === undefined ? {} : { ca: anchor }),
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
    ALPNProtocols: ['http/1.1'],
  })
  // Whoever uses the socket hears of later errors; none may be unheard.
  socket.on('error', () => {})
  try {
    await once(socket, 'secureConnect', { signal })
    return socket
  } catch (error) {
    socket.destroy()
    throw failure(proxy, error)
  }
}

function failure(proxy: Proxy, cause: unknown): unknown {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
  const name = printAddress(proxy)
  if (UNTRUSTED.test(code))
    return new ProxyError(
      'proxy.untrusted',
      `The proxy ${name} does not prove that it is ${proxy.host} (${code}).`,
      CLOCK.has(code)
        ? 'Look at the clock of this machine first; if it is right, the proxy needs a new certificate.'
        : proxy.anchor === undefined
          ? "Name the authority that signs the proxy's certificate: proxy_ca_file (--proxy-ca-file)."
          : "Check that the proxy's CA file is of the authority that signs its certificate, and that the certificate has this name.",
      { cause },
    )
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_'))
    return new ProxyError(
      'proxy.answer',
      `What listens at ${name} does not answer in TLS (${code}).`,
      'Check the address, and whether it is an HTTP proxy without TLS: http://…',
      { cause },
    )
  return cause
}

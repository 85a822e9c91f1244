/**
 * The way out of this machine's network. A command has one, taken from its options or else from the
 * environment before it runs, and everything it dials goes that way.
 */
import { resolve } from 'node:path'

/** Text as it was given; whoever uses it reads it. */
export interface Way {
  /** `tls` or `websocket`: what a tunnel travels in. */
  readonly carrier?: string | undefined
  readonly proxy?: string | undefined
  /** Absolute. */
  readonly proxyAuthFile?: string | undefined
  /** Absolute. */
  readonly proxyCaFile?: string | undefined
}

/**
 * Options win over `SALLYPORT_CARRIER`, `SALLYPORT_PROXY`, `SALLYPORT_PROXY_AUTH_FILE` and `SALLYPORT_PROXY_CA_FILE`; an
 * empty text is none.
 */
export function wayOf(
  options: Way,
  environment: Readonly<Record<string, string | undefined>>,
): Way {
  const given = (option: string | undefined, name: string) => {
    const value = option ?? environment[name]
    return value === '' ? undefined : value
  }
  const file = given(options.proxyAuthFile, 'SALLYPORT_PROXY_AUTH_FILE')
  const ca = given(options.proxyCaFile, 'SALLYPORT_PROXY_CA_FILE')
  return {
    carrier: given(options.carrier, 'SALLYPORT_CARRIER'),
    proxy: given(options.proxy, 'SALLYPORT_PROXY'),
    proxyAuthFile: file === undefined ? undefined : resolve(file),
    proxyCaFile: ca === undefined ? undefined : resolve(ca),
  }
}

let taken: Way = {}

/** Sets the way of this process; the last one counts. */
export function takeWay(way: Way): void {
  taken = way
}

export function wayOut(): Way {
  return taken
}

/** Other addresses that a gateway names when it goes; believed only as far as its certificate proves. */
import { isIP } from 'node:net'
import type { Gateway } from './config.ts'

const NAME = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/i

/** `host:port` or `[IPv6]:port`; undefined for anything else. */
export function readAlternative(text: string): Gateway | undefined {
  const [, six, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? []
  const host = six ?? plain
  const port = Number(digits)
  if (host === undefined || port < 1 || port > 65_535) return undefined
  if (six === undefined ? isIP(host) !== 4 && !NAME.test(host) : isIP(host) !== 6) return undefined
  return { host, port }
}

/**
 * What can be read of `texts`, in an order that differs from device to device, so that a plant's
 * devices spread over what is left. `random`: uniform in [0, 1).
 */
export function spread(texts: readonly string[], random: () => number): readonly Gateway[] {
  return texts
    .flatMap((text) => readAlternative(text) ?? [])
    .map((gateway) => ({ gateway, at: random() }))
    .toSorted((one, other) => one.at - other.at)
    .map(({ gateway }) => gateway)
}

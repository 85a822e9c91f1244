/**
 * Other addresses that a gateway names when it goes. Its certificate proves what answers there; where to
 * look is the owner's to say: a gateway in the wrong hands must not have the device try doors for it.
 */
import { isIP } from 'node:net'
import type { Address as Gateway } from '#tunnel'

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
 * Whether an alternative may be tried: the host of the config's own gateway; what the config lists; a
 * name beside it, such as `gw2.plant.example` for `gw1.plant.example`, at its port or at 443.
 */
export function mayFollow(
  { host, port }: Gateway,
  configured: { readonly gateway: Gateway; readonly others: readonly Gateway[] },
): boolean {
  const own = configured.gateway
  const named = (text: string) => text.toLowerCase()
  if (named(host) === named(own.host)) return true
  if (configured.others.some((one) => named(one.host) === named(host) && one.port === port))
    return true
  const parent = parentOf(own.host)
  return (
    parent !== undefined && parentOf(host) === parent && (port === own.port || port === HTTPS_PORT)
  )
}

const HTTPS_PORT = 443

/** The name without its first label; undefined for an address, and for what is directly below the top. */
function parentOf(host: string): string | undefined {
  if (isIP(host) !== 0) return undefined
  const [, ...labels] = host.toLowerCase().split('.')
  return labels.length < 2 ? undefined : labels.join('.')
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

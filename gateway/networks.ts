/** Addresses and networks as a configuration names them. */
import { BlockList, isIP } from 'node:net'

/**
 * Those of `texts`: an address each (`192.0.2.7`, `2001:db8::7`), or a network (`192.0.2.0/24`). Throws
 * RangeError, with the text, for anything else.
 */
export function networksOf(texts: readonly string[]): BlockList {
  const list = new BlockList()
  for (const text of texts) {
    const [address = '', bits, ...more] = text.split('/')
    const family = isIP(address)
    const most = family === 4 ? 32 : 128
    const prefix = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : Infinity
    if (family === 0 || prefix > most || more.length > 0) throw new RangeError(text)
    list.addSubnet(address, prefix, family === 4 ? 'ipv4' : 'ipv6')
  }
  return list
}

/** Whether `address`, plain as plainAddress of facts.ts gives it, is in `list`. */
export function isIn(list: BlockList, address: string): boolean {
  const family = isIP(address)
  return family !== 0 && list.check(address, family === 4 ? 'ipv4' : 'ipv6')
}

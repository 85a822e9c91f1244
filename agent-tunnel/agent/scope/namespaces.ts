/**
 * The other network namespaces of this machine, where a container's end of a connection is. Only those
 * that somebody of our own user namespace is in: entering one takes privilege over it, and a user who
 * makes a namespace of their own, with whatever addresses they like, stays in a user namespace too.
 */
import { readdirSync, readlinkSync } from 'node:fs'

/** One process of each network namespace other than ours, as a path below `proc`. */
export function otherNamespaces(proc: string): readonly string[] {
  const seen = new Set([linkOf(`${proc}/self/ns/net`)])
  const user = linkOf(`${proc}/self/ns/user`)
  const found: string[] = []
  if (user === undefined) return found
  for (const name of readdirSync(proc)) {
    if (!/^\d+$/.test(name)) continue
    const net = linkOf(`${proc}/${name}/ns/net`)
    if (net === undefined || seen.has(net)) continue
    if (linkOf(`${proc}/${name}/ns/user`) !== user) continue
    seen.add(net)
    found.push(`${proc}/${name}`)
  }
  return found
}

/** Undefined: it ended, or may not be read. */
function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

/** Whether a device takes an update that a gateway offers: named checks in their order, the first that fails is told. */
import type { UpdateKey } from './key.ts'
import { isSigned, readManifest, type Update } from './manifest.ts'
import { rankOf } from './version.ts'

/** Closed: docs/updates.md says what each means. */
export type UpdateFault =
  | 'update.unpinned'
  | 'update.manifest'
  | 'update.signature'
  | 'update.expired'
  | 'update.rollback'
  | 'update.from'
  | 'update.node'

/** What the device knows by itself; nothing of it comes from the gateway. */
export interface Standing {
  /** The keys that its owner pinned. */
  readonly keys: readonly UpdateKey[]
  /** Epoch seconds, by the device's own idea of the time. */
  readonly now: number
  /** The version that runs. */
  readonly running: string
  /** The newest version that ever ran here and was found healthy: nothing older is taken. */
  readonly floor: string
  /** The Node that runs. */
  readonly node: string
}

export type Checked =
  | { readonly ok: true; readonly update: Update }
  | { readonly ok: false; readonly code: UpdateFault; readonly detail: string }

type Check = (
  update: Update,
  standing: Standing,
) => readonly [code: UpdateFault, detail: string] | undefined

const isCurrent: Check = ({ notAfter }, { now }) =>
  now < notAfter
    ? undefined
    : ['update.expired', `it was to be taken before ${new Date(notAfter * 1000).toISOString()}`]

const isNewer: Check = ({ version }, { running, floor }) => {
  if (rankOf(version) <= rankOf(running))
    return ['update.rollback', `it is ${version}, and ${running} runs here`]
  // The same again: its file may have been damaged since.
  return rankOf(version) >= rankOf(floor)
    ? undefined
    : ['update.rollback', `it is ${version}, and ${floor} was healthy here`]
}

const mayFollow: Check = ({ from }, { running }) =>
  rankOf(running) >= rankOf(from)
    ? undefined
    : ['update.from', `it is for ${from} and newer, and this is ${running}`]

const hasNode: Check = ({ node: needed }, { node }) =>
  rankOf(node) >= rankOf(needed)
    ? undefined
    : ['update.node', `it needs Node ${needed}, and this is ${node}`]

const CHECKS: readonly Check[] = [isCurrent, isNewer, mayFollow, hasNode]

/** The update in a manifest that the owner's key signed and that is for this device as it stands; never throws. */
export function checkUpdate(text: string, standing: Standing): Checked {
  const refuse = (code: UpdateFault, detail: string) => ({ ok: false, code, detail }) as const
  if (standing.keys.length === 0)
    return refuse('update.unpinned', 'this device has no update key, and takes no update')
  const read = readManifest(text)
  if (read === undefined) return refuse('update.manifest', 'it is no manifest of an update')
  if (!isSigned(text, standing.keys))
    return refuse('update.signature', `no key that is pinned here signed it (${read.keyId})`)
  for (const check of CHECKS) {
    const fault = check(read.update, standing)
    if (fault !== undefined) return refuse(...fault)
  }
  return { ok: true, update: read.update }
}

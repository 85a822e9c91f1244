/** Versions of the agent as they are compared: three numbers, nothing after them. */

/** At most so much for each: what policy compares is major, minor and patch by thousands. */
const MOST = 999

/** Major, minor, patch of a version like `1.20.3`; undefined for what is none. */
export function readVersion(text: string): readonly [number, number, number] | undefined {
  const [, major, minor, patch] =
    /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(text) ?? []
  if (major === undefined || minor === undefined || patch === undefined) return undefined
  return [Number(major), Number(minor), Number(patch)]
}

/** A version as one number, in the order of versions; -1 for what is none, which is before every one. */
export function rankOf(text: string): number {
  const read = readVersion(text)
  if (read === undefined) return -1
  return read.reduce((rank, part) => rank * (MOST + 1) + part, 0)
}

/** Events on their way into a copy: so many are fetched, and so many written, at once. */
import { formatTilePath, parseBundle } from '../publish.ts'
import { AuditError } from '../errors.ts'
import { bodyLimit } from '../segment.ts'
import { tileWidth } from '../tile.ts'
import type { FetchTile } from './tiles.ts'

/** What is fetched before it is shown to belong to the head, at most. */
const chunkBundles = 16
const chunkBytes = 8 * 1024 * 1024
const batchEvents = 1_024
const batchBytes = 1024 * 1024

/**
 * Events from `from` on, as the log of `size` serves them, so many as are looked at together. AuditError `mirror.source`
 * for a bundle that does not hold what its path says.
 */
export async function bodiesFrom(
  entries: FetchTile,
  from: number,
  size: number,
): Promise<Uint8Array[]> {
  const bodies: Uint8Array[] = []
  let bytes = 0
  for (let n = Math.floor(from / tileWidth), end = n + chunkBundles; n < end; n++) {
    const width = Math.min(tileWidth, size - n * tileWidth)
    if (width <= 0 || bytes > chunkBytes) break
    const path = formatTilePath({ level: 'entries', n, width })
    const bundle = parseBundle(await entries(path), width)
    if (bundle === null || bundle.some((body) => body.length === 0 || body.length > bodyLimit))
      throw new AuditError('mirror.source', `${path} does not hold ${width} events`)
    const fresh = bundle.slice(Math.max(0, from - n * tileWidth))
    for (const body of fresh) bytes += body.length
    bodies.push(...fresh)
  }
  return bodies
}

/** The same events in order, cut into what is written together. */
export function* batchesOf(bodies: readonly Uint8Array[]): Generator<Uint8Array[]> {
  let batch: Uint8Array[] = []
  let bytes = 0
  for (const body of bodies) {
    if (batch.length > 0 && (batch.length >= batchEvents || bytes + body.length > batchBytes)) {
      yield batch
      ;[batch, bytes] = [[], 0]
    }
    batch.push(body)
    bytes += body.length
  }
  if (batch.length > 0) yield batch
}

/**
 * Step 8: every event arrived, in order, at the SIEM's receiver; `sallyport audit verify` proves the
 * log; one byte changed in a copy of it makes the proof fail and name the place.
 */
import { createHash } from 'node:crypto'
import { cpSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { LogEntry } from '#api'
import type { Verdict } from '#audit'
import { expect, until } from '../failure.ts'
import type { GatewayNode } from '../gateway-node.ts'
import { codeOf, readEvents } from '../log.ts'
import type { Received } from '../receiver.ts'
import type { Found, Stage } from '../stage.ts'

export interface Proven extends Found {
  readonly entries: readonly LogEntry[]
  readonly checkpoint: string
}

const SHIP_MS = 20_000

export async function proveLog(
  stage: Stage,
  gateway: GatewayNode,
  received: string,
): Promise<Proven> {
  const { entries, checkpoint } = await readEvents(stage)
  const frames = await until('every event at the receiver', SHIP_MS, () =>
    complete(received, entries),
  )
  const hashed = frames.filter(({ body }) => body !== null)
  for (const frame of hashed)
    expect(
      leafOf(frame.body ?? '') === frame.leaf,
      `the bytes of event ${frame.idx} to be its leaf's`,
      frame.leaf,
    )
  const verdict = await verify(stage, gateway, logDirectory(gateway))
  expect(
    verdict.code === 0 && verdict.verdict.outcome === 'proven',
    'the log to be proven',
    verdict,
  )
  const broken = await flipOneByte(stage, gateway)
  const codes = new Set(entries.map(codeOf))
  return {
    entries,
    checkpoint,
    found: [
      `${entries.length} events of ${codes.size} kinds at the receiver, in order, none missing`,
      `proven: ${verdict.verdict.events} events, ${verdict.verdict.checkpoints} signed checkpoints`,
      broken,
    ],
  }
}

/** The receiver's events once each, if they are all of `entries` in order; else why not, as an error. */
function complete(path: string, entries: readonly LogEntry[]): Received[] | undefined {
  const seen = new Set<string>()
  const frames = readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line) as Received)
    .filter(({ idx, uid }) => idx !== null && !seen.has(uid) && seen.add(uid).size > 0)
  frames.forEach((frame, at) =>
    expect(frame.idx === at, `event ${at} next at the receiver`, `event ${frame.idx}`),
  )
  expect(frames.length >= entries.length, `${entries.length} events at the receiver`, frames.length)
  for (const entry of entries)
    expect(
      frames[entry.idx]?.leaf === entry.leaf,
      `event ${entry.idx} as the log has it`,
      frames[entry.idx],
    )
  return frames.slice(0, entries.length)
}

function leafOf(body: string): string {
  return createHash('sha256')
    .update(Buffer.concat([Buffer.of(0), Buffer.from(body, 'utf8')]))
    .digest('hex')
}

export interface Verified {
  readonly code: number
  readonly verdict: Verdict
}

/** `sallyport audit verify` on a directory, with the keys that the gateway handed out at its first start. */
export async function verify(
  stage: Stage,
  gateway: GatewayNode,
  directory: string,
  held?: string,
): Promise<Verified> {
  const args = ['audit', 'verify', '--log', directory, '--key', gateway.file('log-keys.txt')]
  const outcome = await stage.sallyport.run(
    'none',
    held === undefined ? args : [...args, '--held', held],
  )
  const last = outcome.out.trim().split('\n').at(-1) ?? ''
  expect(last.startsWith('{'), 'a verdict from audit verify', outcome.err || outcome.out)
  return { code: outcome.code, verdict: JSON.parse(last) as Verdict }
}

/** The directory of the node's log: the one that holds `checkpoint`. */
export function logDirectory(gateway: GatewayNode): string {
  const found = readdirSync(gateway.file('log'), { recursive: true, encoding: 'utf8' }).find(
    (name) => /(?:^|\/)checkpoint$/.test(name),
  )
  expect(found !== undefined, 'a checkpoint in the log directory', gateway.file('log'))
  return join(gateway.file('log'), found, '..')
}

async function flipOneByte(stage: Stage, gateway: GatewayNode): Promise<string> {
  const copy = join(stage.folder('tampered'), 'log')
  cpSync(logDirectory(gateway), copy, { recursive: true })
  const segments = readdirSync(join(copy, 'seg')).toSorted()
  const segment =
    segments.find((name) => statSync(join(copy, 'seg', name)).size > 2_000) ?? segments[0] ?? ''
  const path = join(copy, 'seg', segment)
  const bytes = readFileSync(path)
  // A letter inside an event in the middle of the file: still JSON, still plausible, no longer what was signed.
  const at = bytes.indexOf('press-07', Math.floor(bytes.length / 3))
  expect(at > 0, 'an event that names press-07 in the first segment', segment)
  bytes.writeUInt8('8'.charCodeAt(0), at + 'press-0'.length)
  writeFileSync(path, bytes)
  const { code, verdict } = await verify(stage, gateway, copy)
  expect(code === 1 && verdict.outcome === 'violated', 'the tampered copy to be violated', {
    code,
    verdict,
  })
  const place = verdict.place
  expect(
    place !== undefined && place.segment.includes(segment),
    `the place to be in ${segment}`,
    verdict,
  )
  expect(Math.abs(place.offset - at) < 65_536, `an offset near ${at}`, place.offset)
  return `one byte changed at offset ${at} of a copy: violated, event ${place.idx} in ${place.segment} at ${place.offset}`
}

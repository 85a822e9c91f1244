/** A device that starts a declared program, for the file that imports this: with a gateway of its own, and a directory for each row. */
import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { userInfo } from 'node:os'
import { afterAll, beforeAll, beforeEach, expect } from 'vitest'
import { At } from '../../../agent-tunnel/agent/at.ts'
import { targetOf } from '../../../agent-tunnel/agent/target.ts'
import type { HandClock } from '../../support/clock.ts'
import { enrolled, Directory, running } from '../device.ts'
import type { Running } from '../device.ts'
import { FakeGateway, holds, openStream, proceed, soon } from '../gateway.ts'
import type { Held, Opened } from '../gateway.ts'

export const root = userInfo().uid === 0
const user = root ? 'nobody' : userInfo().uid
export const uid = root ? 65_534 : userInfo().uid
const namespaces = spawnSync('unshare', [
  ...(root ? [] : ['--user', '--map-current-user']),
  '--pid',
  '--fork',
  '--mount-proc',
  'true',
])
export const missing = process.platform !== 'linux' || namespaces.status !== 0
export const SH = '/bin/sh'
export const shell = missing ? '' : realpathSync(SH)

export const target = (declaration: object) =>
  targetOf(new At('test', 'targets.tool', { spawn: { user, ...declaration } }))
export const sh = (script: string, more: object = {}) =>
  target({ argv: [SH, '-c', script], ...more })

let gateway: FakeGateway
let directory: Directory
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())
beforeEach(() => {
  directory = new Directory()
  chmodSync(directory.path, 0o755)
  return () => directory[Symbol.dispose]()
})

/** The directory of the row that runs: the device's, and for whatever else it needs. */
export const place = (): string => directory.path

interface Device extends AsyncDisposable {
  readonly agent: Running
  readonly held: Held
  open(overrides?: Readonly<Record<string, unknown>>): Promise<Opened>
}

export async function device(tool: ReturnType<typeof target>, clock?: HandClock): Promise<Device> {
  const config = await enrolled(gateway, directory)
  const targets = new Map([['tool', tool]])
  const agent = running({ ...config, targets }, clock === undefined ? {} : { clock })
  const held = await gateway.nextTunnel()
  return {
    agent,
    held,
    open: (overrides = {}) => openStream(held, 'tool', overrides, 'spawn'),
    [Symbol.asyncDispose]: () => agent.stop(),
  }
}

export const closed = (opened: Opened) => soon('the stream closes', opened.closed)

/** Runs `tool` to its end, its input ended at once; gives what it said and how it ended. */
export async function run(tool: ReturnType<typeof target>, overrides = {}) {
  await using one = await device(tool)
  const opened = await one.open(overrides)
  proceed(opened)
  opened.stream.end()
  const reason = await closed(opened)
  return { said: opened.received.toString(), exit: opened.signals.at(-1), reason, opened }
}

/** Pids of processes of this machine whose command line holds `mark`. */
export function alive(mark: string): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(mark)
    } catch {
      return false
    }
  })
}

let marks = 0
/** A duration for `sleep` that nobody else sleeps. */
export const mark = () => `${4000 + (process.pid % 1000)}.${process.pid}${++marks}`

export async function up(name: string, count: number): Promise<void> {
  await holds(() => expect(alive(name).length).toBeGreaterThanOrEqual(count))
}
export async function none(name: string): Promise<void> {
  await holds(() => expect(alive(name)).toEqual([]))
}

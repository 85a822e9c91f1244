/** Recordings as an auditor has them, and the two commands that most rows give. */
import { cpSync, mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { makePlace, sessionOf, type Place } from '../support/recordings.ts'
import { run } from './run.ts'

/** Of the file that runs: a node’s recordings, its log, an auditor’s keys. */
export const here = {} as { place: Place }
export const terminal = sessionOf('spawn')
export const web = sessionOf('http')
export const modbus = sessionOf('tcp')
export const bytes = (text: string) => new TextEncoder().encode(text)

async function record(): Promise<void> {
  here.place = await makePlace()
  const recordings = here.place.open({ limits: { partBytes: 100 } })
  const shell = await recordings.admit(terminal, () => {})
  const tap = shell.tap(null)
  for (let at = 0; at < 10; at++) {
    tap.data('out', bytes(`line ${at} \u001b]52;c;ZXZpbA==\u0007\u001b[6n\r\n`))
    here.place.now += 60_000
  }
  tap.end()
  await shell.end('client_done')
  const pages = await recordings.admit(web, () => {})
  pages.web({
    at: here.place.now,
    endedAt: here.place.now + 20,
    method: 'GET',
    host: 'hmi',
    target: '/start?page=2',
    ip: null,
    user: 'i|vera',
    status: 200,
    requestType: undefined,
    responseType: undefined,
    bytesIn: 0,
    bytesOut: 9,
    upgraded: undefined,
    decision: 'd_1',
    code: undefined,
  })
  await pages.end('client_done')
  const plain = await recordings.admit(modbus, () => {})
  plain.tap('192.0.2.7').data('in', bytes('hello'))
  await plain.end('client_done')
  await here.place.log.checkpoint()
}

/** One recording of each kind, of several parts, and all that is needed to read and to prove them. */
export function threeRecordings(): void {
  beforeAll(record)
  afterAll(() => here.place[Symbol.asyncDispose]())
}

export const opened = (id: string, identity = here.place.identities.anna) => [
  id,
  '--from',
  here.place.directory,
  '--identity',
  identity,
]
export const prove = (from: string, ...more: string[]) =>
  run(
    here.place.home,
    'recording',
    'verify',
    ...more,
    '--from',
    from,
    '--log',
    here.place.logDirectory,
    '--key',
    here.place.keys,
  )

/** The recordings once more, to be spoilt. */
export function copied(): string {
  const copy = mkdtempSync(join(here.place.home, 'copy-'))
  cpSync(here.place.directory, copy, { recursive: true })
  return copy
}

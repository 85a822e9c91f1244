/** A CA in a folder of its own for each row, and what its operator and the gateway see of it. */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach } from 'vitest'
import { openAuthority } from '../../../gateway/authority.ts'
import { readConfig, type Config } from '../../../gateway/config.ts'
import { initCa } from '../../../gateway/keys/acts.ts'
import { openRoom, type CaRoom } from '../../../gateway/keys/room.ts'
import { readState, type Act } from '../../../gateway/keys/state.ts'

export const DAY = 86_400_000
export const copyOf = { text: 'correct horse battery', file: 'the test', beside: false }

interface Here {
  folder: string
  config: Config
  room: CaRoom
  /** Epoch milliseconds. */
  clock: number
}
/** Of the row that runs. */
export const here = {} as Here
/** A data directory with a CA as `initCa` makes it: sealing is slow on purpose, and paid once a file. */
let like: string | undefined
let root: string | undefined

/** A new folder for each row of the file, which goes with it. */
export function eachRow(): void {
  beforeEach(() => {
    here.folder = mkdtempSync(join(tmpdir(), 'sallyport-keys-'))
    here.config = configOf(at('node'))
    here.clock = Date.now()
    here.room = openRoom(here.config, 'operator|test', { now: () => here.clock })
  })
  afterEach(() => rmSync(here.folder, { recursive: true }))
  afterAll(() => like === undefined || rmSync(like, { recursive: true }))
}

export function configOf(data: string, passphraseFile?: string): Config {
  const read = readConfig({ overrides: { data }, environment: {} })
  return passphraseFile === undefined ? read : { ...read, ca: { passphrase_file: passphraseFile } }
}
export const at = (...parts: string[]) => join(here.folder, ...parts)
export const inCa = (name: string) => at('node', 'ca', name)
export const state = () => readState(at('node', 'ca'))

/** There is a CA, with the root key on the node. */
export async function made(): Promise<void> {
  if (like === undefined) {
    like = mkdtempSync(join(tmpdir(), 'sallyport-keys-'))
    await initCa(openRoom(configOf(join(like, 'node')), 'operator|test'))
  }
  cpSync(join(like, 'node'), at('node'), { recursive: true })
}

/** The same, and a gateway has told its log of it; gives the SHA-256 of its root. */
export async function begun(): Promise<string> {
  if (root === undefined) {
    await made()
    root = (await start()).authority.rootSha256
    cpSync(at('node'), join(like ?? '', 'begun'), { recursive: true })
  } else cpSync(join(like ?? '', 'begun'), at('node'), { recursive: true })
  return root
}

export function secret(name: string, text: string): string {
  writeFileSync(at(name), text, { mode: 0o600 })
  return at(name)
}

/** What a start of the gateway says of the CA, and what it opens. */
export async function start(of = here.config) {
  const acts: Act[] = []
  const authority = await openAuthority(
    of,
    () => here.clock,
    async (act) => void acts.push(act),
  )
  return { authority, acts, said: acts.map((each) => each.message).join('\n') }
}

export function openssl(...args: string[]): string {
  const run = spawnSync('openssl', args, { encoding: 'utf8', cwd: here.folder })
  if (run.status !== 0) throw new Error(run.stderr)
  return run.stdout
}

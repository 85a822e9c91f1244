/**
 * What a device keeps of updates, in `update/` of its data directory: which keys count, which agent starts, and the
 * agents with their manifests. Every change is whole or not there; an agent is run only as its owner signed it.
 */
import { hash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { isSigned, readManifest, readUpdateKey, type Update, type UpdateKey } from '#update'
import { replaceFile, syncDirectory } from './durable.ts'
import { freshState, readState, withoutDamaged, type BootState, type Kept } from './state.ts'

const FOLDER = 'update'
const KEYS = 'keys'
const STATE = 'state.json'
/** While it is there, an agent is on trial; what it holds nobody reads. */
const ON_TRIAL = 'on-trial'
/** The agent on trial was ended because it hung. */
const LATE = 'late'
/** The one that signs, one for when that is lost, and both again while they are replaced. */
export const MOST_KEYS = 4

/** First word of a line that has the executable run an update: behind it are the SHA-256, the file, and the words for that. */
export const UPDATE_WORD = 'become-update'

/** Where a run can be broken off, for tests that do so. */
export type Step = (name: string) => void

export class Shelf {
  readonly folder: string
  readonly #step: Step

  constructor(dataDir: string, step: Step = () => {}) {
    this.folder = join(dataDir, FOLDER)
    this.#step = step
  }

  /**
   * The keys that the owner pinned; none where there is no file, or it is not one of keys alone. Throws the system's error
   * where there is one that cannot be read.
   */
  keys(): readonly UpdateKey[] {
    const words = textOf(join(this.folder, KEYS))?.trim().split('\n') ?? []
    const keys = words.map(readUpdateKey).filter((key) => key !== undefined)
    return keys.length === words.length && keys.length <= MOST_KEYS ? keys : []
  }

  /** Pins these keys and no others, durably; none: the device takes no update any more. Throws the system's error. */
  pin(keys: readonly UpdateKey[]): void {
    this.#make()
    const path = join(this.folder, KEYS)
    if (keys.length > 0) replaceFile(path, `${keys.map(({ word }) => word).join('\n')}\n`, 0o600)
    else {
      rmSync(path, { force: true })
      syncDirectory(this.folder)
    }
  }

  /** What was remembered; what cannot be read is as if nothing were, so that the installed agent starts. */
  state(installed: string): BootState {
    const text = readIfThere(join(this.folder, STATE))
    return (text === undefined ? undefined : readState(text)) ?? freshState(installed)
  }

  /** Remembers `state`, durably. Throws the system's error. */
  remember(state: BootState): void {
    this.#make()
    this.#step('state')
    replaceFile(join(this.folder, STATE), `${JSON.stringify(state)}\n`, 0o600)
    this.#step('state written')
  }

  /** Where the agent with that SHA-256 lies. */
  pathOf(sha256: string): string {
    return join(this.folder, `${sha256}.cjs`)
  }

  #manifestOf(sha256: string): string {
    return join(this.folder, `${sha256}.update`)
  }

  /** Keeps an agent and the manifest it came with, durably. Throws the system's error. */
  keep({ sha256 }: Update, manifest: string, bundle: Uint8Array): void {
    this.#make()
    this.#step('bundle')
    replaceFile(this.pathOf(sha256), bundle, 0o600)
    this.#step('manifest')
    replaceFile(this.#manifestOf(sha256), manifest, 0o600)
    this.#step('kept')
  }

  /**
   * Whether what lies here as `kept` is, octet for octet, what a key that is pinned now signed as that version. Throws as
   * `keys` does: what is only not known now is not damaged.
   */
  isWhole({ version, sha256 }: Kept): boolean {
    const keys = this.keys()
    try {
      const manifest = readFileSync(this.#manifestOf(sha256), 'utf8')
      const update = readManifest(manifest)?.update
      if (update === undefined || !isSigned(manifest, keys)) return false
      if (update.version !== version || update.sha256 !== sha256) return false
      const bundle = readFileSync(this.pathOf(sha256))
      return bundle.length === update.size && hash('sha256', bundle, 'hex') === sha256
    } catch {
      return false
    }
  }

  /** `state` as far as its agents can be run, beginning with the one that `run` would start. */
  sound(state: BootState, kept: Kept | null): BootState | undefined {
    return kept === null || this.isWhole(kept) ? undefined : withoutDamaged(state, kept)
  }

  /** Whether the agent that was on trial was ended because it hung. */
  get late(): boolean {
    return existsSync(join(this.folder, LATE))
  }

  /** Says for who watches whether an agent is on trial, and forgets that one was late. Throws the system's error. */
  markTrial(on: boolean): void {
    if (!existsSync(this.folder)) return
    rmSync(join(this.folder, LATE), { force: true })
    if (on) replaceFile(join(this.folder, ON_TRIAL), '', 0o600)
    else rmSync(join(this.folder, ON_TRIAL), { force: true })
  }

  /** Forgets the agents that `state` does not name. A file that stays for now goes another time. */
  sweep({ current, previous, trial }: BootState, coming?: string): void {
    const named = new Set([current?.sha256, previous?.sha256, trial?.sha256, coming])
    for (const name of readdirSync(this.folder)) {
      const [, sha256] = /^([0-9a-f]{64})\.(?:cjs|update)(?:\.new)?$/.exec(name) ?? []
      if (sha256 !== undefined && !named.has(sha256))
        rmSync(join(this.folder, name), { force: true })
    }
  }

  #make(): void {
    if (existsSync(this.folder)) return
    mkdirSync(this.folder, { mode: 0o700 })
    syncDirectory(join(this.folder, '..'))
  }
}

/** Undefined: there is no such file. */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return textOf(path)
  } catch {
    return undefined
  }
}

/**
 * Where bundles lie between starts: `active`, `last-good`, `candidate`, and what has ever been in
 * force. Every change is a whole new file, on disk before it counts; nothing here trusts what it reads,
 * whoever loads a slot verifies it again.
 */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Type, type Static } from 'typebox'
import { Value } from 'typebox/value'
import type { HighWater } from '#policy'

export type Slot = 'active' | 'last-good' | 'candidate'

const Mark = Type.Object({ seq: Type.Integer({ minimum: 0 }), digest: Type.String() })
const State = Type.Object({
  /** The highest sequence ever in force here. */
  high_water: Type.Union([Mark, Type.Null()]),
  /** Digest of an older bundle that people went back to. */
  back_to: Type.Union([Type.String(), Type.Null()]),
  candidate: Type.Union([
    Type.Object({ digest: Type.String(), by: Type.String(), at: Type.Integer() }),
    Type.Null(),
  ]),
})
export type SlotState = Static<typeof State>

const EMPTY: SlotState = { high_water: null, back_to: null, candidate: null }

export class BundleSlots {
  readonly #directory: string
  #state: SlotState

  private constructor(directory: string, state: SlotState) {
    this.#directory = directory
    this.#state = state
  }

  /**
   * Opens or makes the directory (0700). Throws where its state cannot be read: a node that does not
   * know what was in force must not guess.
   */
  static open(directory: string): BundleSlots {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const text = readIfThere(join(directory, 'state.json'))
    if (text === undefined) return new BundleSlots(directory, EMPTY)
    const state: unknown = JSON.parse(text.toString('utf8'))
    if (!Value.Check(State, state))
      throw new Error(`${join(directory, 'state.json')} is not what a gateway wrote there`)
    return new BundleSlots(directory, state)
  }

  get state(): SlotState {
    return this.#state
  }

  get highWater(): HighWater | null {
    return this.#state.high_water
  }

  /** The archive in a slot, or undefined. */
  read(slot: Slot): Uint8Array<ArrayBuffer> | undefined {
    const bytes = readIfThere(this.#path(slot))
    return bytes === undefined ? undefined : new Uint8Array(bytes)
  }

  /** Puts an archive into a slot, on disk before this returns. */
  write(slot: Slot, archive: Uint8Array): void {
    this.#replace(this.#path(slot), archive)
  }

  empty(slot: Slot): void {
    rmSync(this.#path(slot), { force: true })
    this.#sync()
  }

  /** Changes what is remembered, on disk before this returns. */
  remember(changes: Partial<SlotState>): void {
    const state = { ...this.#state, ...changes }
    this.#replace(join(this.#directory, 'state.json'), Buffer.from(`${JSON.stringify(state)}\n`))
    this.#state = state
  }

  #path(slot: Slot): string {
    return join(this.#directory, `${slot}.tar`)
  }

  #replace(path: string, bytes: Uint8Array): void {
    const beside = `${path}.new`
    writeFileSync(beside, bytes, { mode: 0o600, flush: true })
    renameSync(beside, path)
    this.#sync()
  }

  /** A rename is on disk when its directory is. */
  #sync(): void {
    const directory = openSync(this.#directory, 'r')
    try {
      fsyncSync(directory)
    } finally {
      closeSync(directory)
    }
  }
}

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

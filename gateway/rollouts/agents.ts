/** The agents that are rolled out, in the data directory, each under the SHA-256 that its manifest names. */
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { replaceFile } from '#boot'
import type { AgentFile } from '../devices/onboarding.ts'

const NAMED = /^[0-9a-f]{64}$/

export class RolledAgents {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Keeps one, durably, and forgets those that no rollout in `open` is of. Throws the system's error. */
  keep(sha256: string, bundle: Uint8Array, open: readonly string[]): void {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
    replaceFile(join(this.#folder, sha256), bundle, 0o600)
    for (const name of readdirSync(this.#folder))
      if (name !== sha256 && !open.includes(name)) rmSync(join(this.#folder, name))
  }

  /** What devices may fetch, by name. */
  files(): readonly AgentFile[] {
    if (!existsSync(this.#folder)) return []
    return readdirSync(this.#folder)
      .filter((name) => NAMED.test(name))
      .map((name) => {
        const path = join(this.#folder, name)
        return { name, path, sha256: name, bytes: statSync(path).size }
      })
  }
}

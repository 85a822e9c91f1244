/** The real openssl, on files of its own folder. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Openssl extends Disposable {
  readonly folder: string
  /** Writes a file and gives its path. */
  file(name: string, content: string | Uint8Array): string
  /** Runs it; both streams together, because openssl says the verdict on either. */
  run(...args: readonly string[]): { readonly status: number | null; readonly text: string }
}

export function openssl(): Openssl {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-openssl-'))
  return {
    folder,
    file(name, content) {
      const path = join(folder, name)
      writeFileSync(path, content)
      return path
    },
    run(...args) {
      const { status, stdout, stderr } = spawnSync('openssl', args, {
        encoding: 'utf8',
        maxBuffer: 2 ** 26,
      })
      return { status, text: `${stdout}${stderr}` }
    },
    [Symbol.dispose]() {
      rmSync(folder, { recursive: true })
    },
  }
}

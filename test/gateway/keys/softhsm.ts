/** A SoftHSM2 token in a folder of its own, and whether this machine has library and binding. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const LIBRARIES = [
  '/usr/lib/softhsm/libsofthsm2.so',
  '/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so',
  '/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so',
]
const library = LIBRARIES.find((path) => existsSync(path)) ?? ''
/** Where `npm install --prefix DIR pkcs11js` put the binding; it compiles, so it is not in the tree. */
const binding = process.env['SALLYPORT_TEST_PKCS11'] ?? ''
export const haveHsm =
  library !== '' &&
  binding !== '' &&
  existsSync(join(binding, 'node_modules', 'pkcs11js')) &&
  spawnSync('softhsm2-util', ['--version']).status === 0

const PIN = '123456'

export class SoftHsm implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'sallyport-hsm-'))
  readonly settings = { module: library, token: 'sallyport-test', pin: PIN, binding }

  constructor() {
    mkdirSync(join(this.#folder, 'tokens'))
    const conf = join(this.#folder, 'softhsm2.conf')
    writeFileSync(
      conf,
      `directories.tokendir = ${join(this.#folder, 'tokens')}\nobjectstore.backend = file\nlog.level = ERROR\n`,
    )
    // The library reads it when it is loaded.
    process.env['SOFTHSM2_CONF'] = conf
    const args = [
      '--init-token',
      '--free',
      '--label',
      'sallyport-test',
      '--pin',
      PIN,
      '--so-pin',
      PIN,
    ]
    const made = spawnSync('softhsm2-util', args, { encoding: 'utf8' })
    if (made.status !== 0) throw new Error(made.stderr)
  }
  pull(): void {
    renameSync(join(this.#folder, 'tokens'), join(this.#folder, 'away'))
    mkdirSync(join(this.#folder, 'tokens'))
  }
  putBack(): void {
    rmSync(join(this.#folder, 'tokens'), { recursive: true })
    renameSync(join(this.#folder, 'away'), join(this.#folder, 'tokens'))
  }
  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

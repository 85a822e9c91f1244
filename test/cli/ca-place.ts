/** `sallyport ca` in a folder of its own for each row, and CAs that are made once a file and copied. */
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest'
import { run, type Ran } from './run.ts'

export const PASSPHRASE = 'correct horse battery'

/** Of the row that runs. */
export const here = { folder: '' }
export const at = (...names: string[]) => join(here.folder, ...names)
let stock = ''
const inStock = (...names: string[]) => join(stock, ...names)

function folderFor(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), name))
  writeFileSync(join(folder, 'pass'), `${PASSPHRASE}\n`, { mode: 0o600 })
  return folder
}

/** A new folder for each row, with a passphrase in `pass`. */
export function eachRow(): void {
  beforeAll(() => {
    stock = folderFor('sallyport-cli-stock-')
  })
  beforeEach(() => {
    here.folder = folderFor('sallyport-cli-ca-')
  })
  afterEach(() => rmSync(here.folder, { recursive: true }))
  afterAll(() => rmSync(stock, { recursive: true }))
}

/** There is a CA: `kept` with its root, `made` without, `asked` with a request alone. Sealing is slow on purpose: once. */
export async function from(name: 'kept' | 'made' | 'asked'): Promise<void> {
  if (!existsSync(inStock(name))) await make[name]()
  cpSync(inStock(name), at('node'), { recursive: true })
  for (const file of ['root.pem', 'request.pem'])
    if (existsSync(inStock(file))) cpSync(inStock(file), at(file))
}
const make = {
  async kept() {
    await initIn('kept', '--keep-root')
  },
  async made() {
    if (!existsSync(inStock('kept'))) await make.kept()
    cpSync(inStock('kept'), inStock('made'), { recursive: true })
    const where = ['--root-to', inStock('root.pem')]
    await initIn('made', ...where, '--root-passphrase-file', inStock('pass'))
  },
  async asked() {
    writeFileSync(inStock('request.pem'), await initIn('asked', '--subordinate'))
  },
}
async function initIn(name: string, ...args: string[]): Promise<string> {
  const ran = await run(stock, 'ca', 'init', '--data', inStock(name), ...args)
  expect(ran.code, ran.err).toBe(0)
  return ran.out
}

export const ca = async (verb: string, ...args: string[]): Promise<Ran> =>
  await run(here.folder, 'ca', verb, '--data', at('node'), ...args)
export const init = async (...args: string[]): Promise<Ran> =>
  await ca('init', '--root-to', at('root.pem'), '--root-passphrase-file', at('pass'), ...args)
export const withRoot = () => ['--root-key', at('root.pem'), '--root-passphrase-file', at('pass')]
export const json = async (verb: string, ...args: string[]) => {
  const ran = await run(here.folder, '--json', 'ca', verb, '--data', at('node'), ...args)
  return { ...ran, value: JSON.parse(ran.out || ran.err) as Record<string, never> }
}

/** What a person is told went wrong: code and next step, and the exit code. */
export function complaint({ code, err }: Ran) {
  const line = (name: string) => new RegExp(`^  ${name}  +(.*)$`, 'm').exec(err)?.[1]
  return { exit: code, code: line('code'), next: line('next'), what: err.split('\n', 1)[0] }
}

export const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { cwd: here.folder, encoding: 'utf8', stdio: 'pipe' })

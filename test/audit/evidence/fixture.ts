/** What the tests of evidence share: packages of a plant's log, a forger's tools, a stranger's verifier. */
import { spawnSync } from 'node:child_process'
import { hash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildEvidence, readCatalogue } from '#audit'
import { readZip } from '../../../audit/evidence/verify.mjs'
import { packEntry, zipOf, type Packed } from '../../../audit/evidence/zip.ts'
import { temporary, vkeys } from '../fixture.ts'

export const catalogue = readCatalogue()

export function packageOf(directory: string, from: number, to: number): Buffer {
  return buildEvidence({ directory, vkeys, from, to, catalogue, device: 'press-07' }).bytes
}

/** What the foreign verifier says: Python and openssl, sharing no line with ours. Its exit code and its words. */
export function foreign(
  bytes: Uint8Array,
  keys: readonly string[] = vkeys,
  more: readonly string[] = [],
): { exit: number; out: string } {
  const at = temporary()
  writeFileSync(join(at, 'p.zip'), bytes)
  writeFileSync(join(at, 'keys'), `${keys.join('\n')}\n`)
  const args = [python, join(at, 'p.zip'), ...(keys.length > 0 ? ['--key', join(at, 'keys')] : [])]
  const { status, stdout, stderr } = spawnSync('python3', [...args, ...more], {
    encoding: 'utf8',
    timeout: 120_000,
  })
  return { exit: status ?? -1, out: `${stdout}${stderr}` }
}
const python = new URL('../../../audit/evidence/verify.py', import.meta.url).pathname
/** Whether there is what the other verifier needs. */
export const hasForeign =
  spawnSync('python3', ['-c', 'import zipfile'], { timeout: 60_000 }).status === 0 &&
  spawnSync('openssl', ['version'], { timeout: 60_000 }).status === 0

/** A package with entries changed and every hash about them mended: what a forger would do. */
export function forge(
  zip: Buffer,
  change: Readonly<Record<string, (text: string) => string>>,
): Buffer {
  return remade(zip, (entry) => {
    const edit = change[entry.name]
    return [edit === undefined ? entry : packEntry(entry.name, edit(entry.bytes.toString()))]
  })
}

/** The same with each entry left out, renamed, or put in place of by others; and with another verdict's `words`, where given. */
export function remade(
  zip: Buffer,
  make: (entry: Packed) => readonly Packed[],
  words?: string,
): Buffer {
  return sealed([...readZip(zip).values()].flatMap(make), words)
}
function sealed(entries: readonly Packed[], words?: string): Buffer {
  const manifest = JSON.parse(
    Buffer.from(entries.find(({ name }) => name === 'manifest.json')?.bytes ?? []).toString(),
  ) as { entries: unknown[]; verdict: { words: string } }
  if (words !== undefined) manifest.verdict.words = words
  const rest = entries.filter(({ name }) => !name.startsWith('manifest.'))
  const sorted = rest.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  manifest.entries = sorted.map(({ name, bytes, packed }) => ({
    name,
    size: bytes.length,
    sha256: sha256(bytes),
    packed_sha256: sha256(packed),
  }))
  const text = `${JSON.stringify(manifest, null, 1)}\n`
  return zipOf([
    ...rest,
    packEntry('manifest.json', text),
    packEntry('manifest.sha256', `${sha256(Buffer.from(text))}  manifest.json\n`),
  ])
}
export const lines = (text: string): string[] => text.split('\n').slice(0, -1)

function sha256(bytes: Uint8Array): string {
  return hash('sha256', bytes)
}

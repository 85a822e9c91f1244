/** Rego -> WASM -> the bundle's files. The same sources and the same `opa` give the same bytes. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { canonicalJson } from '../canonical.ts'
import { ENTRYPOINTS } from '../points.ts'
import { readPaths } from '../reads.ts'
import { readTar, writeTar } from '../tar.ts'
import { OPA_VERSION } from './opa.ts'
import type { Opa } from './opa.ts'
import { BASE, digestOf, regoFiles, ROOM, sourceDigests, vectorFiles } from './sources.ts'
import type { Lock } from './sources.ts'

const run = promisify(execFile)
const encoder = new TextEncoder()

/** Built paths, never data: site.json and the lock lie beside the Rego. */
const NOT_REGO = ['--ignore', '*_test.rego', '--ignore', '*.json', '--ignore', '*.tar']

/** Compiles the policy of the room. Gives the module's bytes. Errors: opa's own message. */
async function compileModule(opa: Opa): Promise<Uint8Array> {
  const directory = await mkdtemp(join(tmpdir(), 'sallyport-policy-'))
  const out = join(directory, 'bundle.tar.gz')
  const entrypoints = ENTRYPOINTS.flatMap((name) => ['--entrypoint', name])
  const compile = ['build', '--target', 'wasm', '--capabilities', 'policy/capabilities.json']
  const sources = ['policy/sallyport', 'policy/default', '--output', out]
  try {
    await run(opa.path, [...compile, ...entrypoints, ...NOT_REGO, ...sources], { cwd: BASE })
    const files = readTar(gunzipSync(await readFile(out)))
    const module = files.get('policy.wasm')
    if (module === undefined) throw new Error('opa made no module')
    return module
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** The files of the bundle around a module: manifest, data, sources, vectors. */
async function bundleFiles(module: Uint8Array): Promise<Map<string, Uint8Array>> {
  const rego = await regoFiles()
  const read = async (path: string): Promise<Uint8Array> => readFile(join(ROOM, path))
  const json = async (path: string): Promise<unknown> =>
    JSON.parse(await readFile(join(ROOM, path), 'utf8'))
  const about = (await json('default/manifest.json')) as Record<string, string | number>
  const texts = await Promise.all(rego.map((path) => readFile(join(ROOM, path), 'utf8')))
  const manifest = {
    revision: about['revision'],
    roots: ['policy', 'sallyport', 'site', 'system/log'],
    rego_version: 1,
    wasm: ENTRYPOINTS.map((entrypoint) => ({ entrypoint, module: '/policy.wasm' })),
    metadata: {
      sallyport: {
        input_v: 1,
        issued_at: about['issued_at'],
        max_age_s: about['max_age_s'],
        reads: readPaths(texts),
      },
    },
  }
  const site = { site: await json('default/site.json') }
  const files = new Map<string, Uint8Array>()
  files.set('policy.wasm', module)
  files.set('.manifest', encoder.encode(`${canonicalJson(manifest)}\n`))
  files.set('data.json', encoder.encode(`${canonicalJson(site)}\n`))
  for (const path of rego) files.set(`policy/${path}`, await read(path))
  for (const path of await vectorFiles()) files.set(path.replace('default/', ''), await read(path))
  return files
}

export interface Built {
  readonly archive: Uint8Array<ArrayBuffer>
  readonly lock: Lock
  readonly moduleBytes: number
}

/** Builds the default bundle and its lock, writing neither. */
export async function buildBundle(opa: Opa): Promise<Built> {
  const module = await compileModule(opa)
  const archive = writeTar(await bundleFiles(module))
  const sources = await sourceDigests()
  const lock = { bundle_sha256: digestOf(archive), opa: OPA_VERSION, sources }
  return { archive, lock, moduleBytes: module.length }
}

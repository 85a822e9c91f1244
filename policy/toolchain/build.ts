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
import { compile, siteSchema } from '../schema.ts'
import { readTar, writeTar } from '../tar.ts'
import { OPA_VERSION } from './opa.ts'
import type { Opa } from './opa.ts'
import { digestOf, LIBRARY, regoFiles, sourceDigests, vectorFiles } from './sources.ts'
import type { Lock } from './sources.ts'
import { DEFAULT_TREE } from './tree.ts'
import type { PolicyTree } from './tree.ts'

const run = promisify(execFile)
const encoder = new TextEncoder()

/** Built paths, never data: site.json and the lock lie beside the Rego. */
const NOT_REGO = ['--ignore', '*_test.rego', '--ignore', '*.json', '--ignore', '*.tar']

/** Compiles the policy of a tree. Gives the module's bytes. Errors: opa's own message. */
async function compileModule(opa: Opa, { base, prefix, rules }: PolicyTree): Promise<Uint8Array> {
  const directory = await mkdtemp(join(tmpdir(), 'sallyport-policy-'))
  const out = join(directory, 'bundle.tar.gz')
  const entrypoints = ENTRYPOINTS.flatMap((name) => ['--entrypoint', name])
  const compile = ['build', '--target', 'wasm', '--capabilities', `${prefix}capabilities.json`]
  const sources = [`${prefix}${LIBRARY}`, `${prefix}${rules}`, '--output', out]
  try {
    await run(opa.path, [...compile, ...entrypoints, ...NOT_REGO, ...sources], { cwd: base })
    const files = readTar(gunzipSync(await readFile(out)))
    const module = files.get('policy.wasm')
    if (module === undefined) throw new Error('opa made no module')
    return module
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function readJson(path: string): Promise<unknown> {
  return JSON.parse(await readFile(path, 'utf8'))
}

/** What manifest.json of a tree says. */
export interface About {
  readonly revision: string
  /** Epoch seconds. */
  readonly issued_at: number
  /** Seconds; 0: never stale. */
  readonly max_age_s: number
}

/** Reads it; `issuedAt`, epoch seconds, stands in where the file says null. */
async function readAbout({ manifest }: PolicyTree, issuedAt = 0): Promise<About> {
  const about = (await readJson(manifest)) as Partial<Record<keyof About, unknown>>
  const { revision, issued_at: at = null, max_age_s: age = 0 } = about
  if (typeof revision !== 'string' || revision === '')
    throw new Error(`${manifest}: revision is not a text`)
  if (typeof age !== 'number') throw new Error(`${manifest}: max_age_s is not a number`)
  return { revision, issued_at: typeof at === 'number' ? at : issuedAt, max_age_s: age }
}

/** The files of the bundle around a module: manifest, data, sources, vectors. */
async function bundleFiles(
  module: Uint8Array,
  tree: PolicyTree,
  about: About,
  reads: readonly string[],
): Promise<Map<string, Uint8Array>> {
  const manifest = {
    revision: about.revision,
    roots: ['policy', 'sallyport', 'site', 'system/log'],
    rego_version: 1,
    wasm: ENTRYPOINTS.map((entrypoint) => ({ entrypoint, module: '/policy.wasm' })),
    metadata: {
      sallyport: {
        input_v: 1,
        issued_at: about.issued_at,
        max_age_s: about.max_age_s,
        reads,
        ...(Object.keys(tree.next).length === 0 ? {} : { next: tree.next }),
      },
    },
  }
  const site = { site: await readJson(tree.site) }
  const problem = compile(siteSchema)(site.site)
  if (problem !== undefined) throw new Error(`${tree.site}: ${problem.slice(1)}`)
  const files = new Map<string, Uint8Array>()
  files.set('policy.wasm', module)
  files.set('.manifest', encoder.encode(`${canonicalJson(manifest)}\n`))
  files.set('data.json', encoder.encode(`${canonicalJson(site)}\n`))
  for (const path of await regoFiles(tree))
    files.set(`policy/${path}`, await readFile(join(tree.room, path)))
  for (const name of await vectorFiles(tree.vectors))
    files.set(`vectors/${name}`, await readFile(join(tree.vectors, name)))
  return files
}

export interface Made {
  /** The bundle's files, unsigned, by name. */
  readonly files: ReadonlyMap<string, Uint8Array>
  readonly about: About
  readonly moduleBytes: number
  /** Paths below `input` that the rules name. */
  readonly reads: readonly string[]
}

/** Compiles a tree into the files of its bundle, writing nothing. Errors: opa's own message. */
export async function makeBundle(opa: Opa, tree: PolicyTree, issuedAt = 0): Promise<Made> {
  const about = await readAbout(tree, issuedAt)
  const module = await compileModule(opa, tree)
  const rego = await regoFiles(tree)
  const texts = await Promise.all(rego.map((path) => readFile(join(tree.room, path), 'utf8')))
  const reads = readPaths(texts)
  const files = await bundleFiles(module, tree, about, reads)
  return { files, about, moduleBytes: module.length, reads }
}

export interface Built {
  readonly archive: Uint8Array<ArrayBuffer>
  readonly lock: Lock
  readonly moduleBytes: number
}

/** Builds the default bundle and its lock, writing neither. */
export async function buildBundle(opa: Opa): Promise<Built> {
  const { files, moduleBytes } = await makeBundle(opa, DEFAULT_TREE)
  const archive = writeTar(files)
  const sources = await sourceDigests()
  const lock = { bundle_sha256: digestOf(archive), opa: OPA_VERSION, sources }
  return { archive, lock, moduleBytes }
}

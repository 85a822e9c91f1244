/**
 * `npm run build:agent`: the agent as one file, and with `-- --sea` as one executable that holds Node as
 * well. The same sources, lockfile and Node give the same bytes. What is written where: docs/agent-build.md.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { rolldown } from 'rolldown'
import type { OutputChunk, Plugin } from 'rolldown'
import { LEAN_ARGUMENTS } from '../../cli/lean.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const ENTRY = join(ROOT, 'cli/device-main.ts')
const BUNDLE = 'sallyport-agent.cjs'
const EXECUTABLE = 'sallyport-agent'
const LICENCES = 'THIRD-PARTY.txt'

/**
 * What most agents never need of Node, or commander asks for and does not use: it is loaded with the
 * first call. An import of another name fails the build.
 */
const LATE: Readonly<Record<string, readonly string[]>> = {
  'node:child_process': ['spawn'],
  'node:dgram': ['createSocket'],
}
const MARK = '\0late:'

const late: Plugin = {
  name: 'late',
  resolveId: (id) => (LATE[id] === undefined ? null : `${MARK}${id}`),
  load(id) {
    const name = id.startsWith(MARK) ? id.slice(MARK.length) : ''
    const calls = LATE[name]
    if (calls === undefined) return null
    return [
      `const late = () => process.getBuiltinModule('${name}')`,
      ...calls.map((call) => `export const ${call} = (...given) => late().${call}(...given)`),
      'export default new Proxy({}, { get: (_, key) => late()[key] })',
    ].join('\n')
  },
}

async function bundle(): Promise<OutputChunk> {
  const build = await rolldown({
    input: ENTRY,
    cwd: ROOT,
    platform: 'node',
    plugins: [late],
  })
  const { output } = await build.generate({
    file: BUNDLE,
    // CommonJS: importing node:http from a module loads all it can name, fetch and all, 11 MiB of it.
    format: 'cjs',
    dynamicImportInCjs: false,
    codeSplitting: false,
    minify: true,
    sourcemap: true,
    banner: '#!/usr/bin/env node',
  })
  await build.close()
  const [chunk, ...more] = output.filter((one) => one.type === 'chunk')
  if (chunk === undefined || more.length > 0) throw new Error('the bundle is not one file')
  const outside = [...chunk.imports, ...chunk.dynamicImports].filter(
    (name) => name !== BUNDLE && !name.startsWith('node:'),
  )
  if (outside.length > 0) throw new Error(`left outside the bundle: ${outside.join(', ')}`)
  return chunk
}

/** One octet a character: V8 keeps a source with any other character at two octets for each. */
function ascii(code: string): string {
  return code.replace(
    /[^\0-\x7f]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** The folder of the package that a bundled file is from; undefined for our own. */
function packageOf(file: string): string | undefined {
  return /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1]
}

/** Name, version, licence and its text for every package that is in the bundle. */
function licences(chunk: OutputChunk): string {
  const folders = new Set(chunk.moduleIds.flatMap((id) => packageOf(id) ?? []))
  const parts = [...folders].sort().map((folder) => {
    const { name, version, license } = JSON.parse(
      readFileSync(join(folder, 'package.json'), 'utf8'),
    ) as Record<'name' | 'version' | 'license', string>
    return `${name} ${version} (${license})\n\n${readFileSync(join(folder, 'LICENSE'), 'utf8').trim()}\n`
  })
  return parts.join(`\n${'-'.repeat(80)}\n\n`)
}

/** Node with the bundle in it, at `path`. `node` is the one that builds; its symbols are left out where strip(1) is. */
function buildExecutable(path: string, main: string): void {
  const node = `${path}.node`
  copyFileSync(process.execPath, node)
  chmodSync(node, 0o755)
  try {
    // Before Node looks for the place of the bundle in it; afterwards strip would break it.
    execFileSync('strip', ['--strip-unneeded', node])
  } catch {
    console.error('strip(1) is not here: the executable keeps the symbols of Node, 30 MB')
  }
  const settings = `${path}.json`
  const config = {
    main,
    executable: node,
    output: path,
    disableExperimentalSEAWarning: true,
    execArgv: LEAN_ARGUMENTS,
    execArgvExtension: 'none',
  }
  writeFileSync(settings, JSON.stringify(config))
  execFileSync(process.execPath, ['--build-sea', settings], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  rmSync(settings)
  rmSync(node)
}

function tell(path: string): void {
  const bytes = readFileSync(path)
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  console.log(`${sha256}  ${path}  ${(bytes.length / 1e6).toFixed(1)} MB`)
}

const { values } = parseArgs({
  options: {
    sea: { type: 'boolean', default: false },
    out: { type: 'string', default: join(ROOT, 'dist/agent') },
  },
})
const out = resolve(values.out)
mkdirSync(out, { recursive: true })
const chunk = await bundle()
const file = join(out, BUNDLE)
writeFileSync(file, ascii(chunk.code), { mode: 0o755 })
writeFileSync(`${file}.map`, JSON.stringify(chunk.map))
writeFileSync(join(out, LICENCES), licences(chunk))
tell(file)
if (values.sea) {
  buildExecutable(join(out, EXECUTABLE), file)
  copyFileSync(join(dirname(process.execPath), '../LICENSE'), join(out, 'NODE-LICENSE.txt'))
  tell(join(out, EXECUTABLE))
}

/** The admission gates that need the compiler: format, types, tests, writing rules, one catalogue. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CATALOGUE, REASONS } from '../catalogue.ts'
import type { CatalogueRow } from '../catalogue.ts'
import { codesIn, lintTree } from './lint.ts'
import type { Finding, Tree } from './lint.ts'
import type { Opa } from './opa.ts'
import { LIBRARY, regoFiles, ROOM } from './sources.ts'
import { DEFAULT_TREE } from './tree.ts'
import type { PolicyTree } from './tree.ts'

const run = promisify(execFile)
const MAX_OUTPUT = 64 * 1024 * 1024

/** The folders of Rego, as the compiler is told them. */
function folders({ prefix, rules }: PolicyTree): string[] {
  return [`${prefix}${LIBRARY}`, `${prefix}${rules}`]
}

async function ask(opa: Opa, { base }: PolicyTree, args: readonly string[]): Promise<string> {
  const { stdout } = await run(opa.path, args, { cwd: base, maxBuffer: MAX_OUTPUT })
  return stdout
}

export interface Gate {
  readonly gate: string
  readonly ok: boolean
  /** What the gate saw, or the compiler's own words. */
  readonly detail: string
}

async function attempt(
  gate: string,
  opa: Opa,
  tree: PolicyTree,
  args: readonly string[],
): Promise<Gate> {
  try {
    return { gate, ok: true, detail: (await ask(opa, tree, args)).trim() }
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    return { gate, ok: false, detail: `${stdout}${stderr}`.trim() }
  }
}

/** `opa fmt`: nothing to change. */
export async function checkFormat(opa: Opa, tree: PolicyTree = DEFAULT_TREE): Promise<Gate> {
  const gate = await attempt('fmt', opa, tree, ['fmt', '--fail', '--list', ...folders(tree)])
  if (gate.ok) return gate
  // What the compiler says of a file that is merely laid out otherwise is no more than that.
  const files = gate.detail.split('\n').filter((line) => line !== 'unexpected diff')
  const plain = files.every((line) => line.endsWith('.rego'))
  const next = 'the compiler lays these out otherwise: sallyport policy fmt DIR rewrites them'
  return { ...gate, detail: (plain ? [...files, next] : files).join('\n') }
}

/** Rewrites the sources in the compiler's format. */
export async function writeFormat(opa: Opa, tree: PolicyTree = DEFAULT_TREE): Promise<Gate> {
  return attempt('fmt', opa, tree, ['fmt', '--write', ...folders(tree)])
}

/** Strict compilation, typed by the same schemas the host validates with, with our capabilities. */
export async function checkTypes(opa: Opa, tree: PolicyTree = DEFAULT_TREE): Promise<Gate> {
  // One file: of a directory the compiler takes only what annotations name.
  const strict = ['check', '--strict', '--schema', `${tree.prefix}schema/input.json`]
  const ignore = ['--ignore', '*.json', '--ignore', '*.tar', '--ignore', '*_test.rego']
  const capable = ['--capabilities', `${tree.prefix}capabilities.json`]
  return attempt('types', opa, tree, [...strict, ...capable, ...ignore, ...folders(tree)])
}

/** The Rego tests, with builtin errors loud. `data` are further files (vectors). */
export async function runRegoTests(
  opa: Opa,
  data: readonly string[],
  tree: PolicyTree = DEFAULT_TREE,
): Promise<Gate> {
  const ignore = ['--ignore', 'lock.json', '--ignore', 'manifest.json', '--ignore', '*.tar']
  const args = [
    'test',
    '--timeout',
    '300s',
    '--verbose',
    ...ignore,
    '--ignore',
    'site.json',
    '--ignore',
    'vectors',
  ]
  return attempt('tests', opa, tree, [...args, ...folders(tree), ...data])
}

/** Lines of the policy's Rego that no test reaches, and the share of those reached. */
export async function coverage(
  opa: Opa,
  data: readonly string[],
  tree: PolicyTree = DEFAULT_TREE,
): Promise<{ percent: number }> {
  const ignore = ['--ignore', 'lock.json', '--ignore', 'manifest.json', '--ignore', '*.tar']
  const args = [
    'test',
    '--timeout',
    '300s',
    '--coverage',
    ...ignore,
    '--ignore',
    'site.json',
    '--ignore',
    'vectors',
  ]
  const report = JSON.parse(await ask(opa, tree, [...args, ...folders(tree), ...data])) as {
    files: Record<string, { covered_lines?: number; not_covered_lines?: number }>
  }
  let covered = 0
  let missed = 0
  for (const [file, lines] of Object.entries(report.files)) {
    if (file.endsWith('_test.rego')) continue
    covered += lines.covered_lines ?? 0
    missed += lines.not_covered_lines ?? 0
  }
  return { percent: covered + missed === 0 ? 0 : (100 * covered) / (covered + missed) }
}

/** The writing rules over every file of the tree's own; the library has its own tests. */
export async function lintPolicy(opa: Opa, tree: PolicyTree = DEFAULT_TREE): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const path of await regoFiles(tree)) {
    if (!path.startsWith(`${tree.rules}/`)) continue
    const file = `${tree.prefix}${path}`
    const args = ['parse', '--format', 'json', '--json-include', 'locations', file]
    findings.push(...lintTree(JSON.parse(await ask(opa, tree, args)) as Tree, file))
  }
  return findings
}

/** Codes in the Rego that the tree's catalogue lacks or words otherwise. Needs no compiler. */
export async function lintCatalogue(tree: PolicyTree = DEFAULT_TREE): Promise<Finding[]> {
  const { codes, reasons, room, prefix } = tree
  const book = tree === DEFAULT_TREE ? 'policy/catalogue.ts' : 'codes.json'
  const findings: Finding[] = []
  for (const path of await regoFiles(tree)) {
    const source = await readFile(join(room, path), 'utf8')
    for (const { code, msg, remedy } of codesIn(source)) {
      const row = Object.hasOwn(codes, code) ? codes[code] : undefined
      const known = msg === undefined ? Object.hasOwn(reasons, code) : row !== undefined
      const worded = msg === undefined || (row?.msg === msg && row.remedy === remedy)
      if (known && worded) continue
      const line = source.slice(0, source.indexOf(`"${code}"`)).split('\n').length
      const other = row !== undefined && msg !== undefined ? differing({ msg, remedy }, row) : ''
      const fix = known ? `word it as ${book} does: ${other}` : `add it to ${book}`
      findings.push({ rule: `catalogue ${code}`, file: `${prefix}${path}`, line, fix })
    }
  }
  return findings
}

/** In which words a rule and the catalogue differ. */
function differing(
  rule: { readonly msg: string; readonly remedy: string | undefined },
  row: CatalogueRow,
): string {
  const shown = (text: string | undefined): string => (text === undefined ? 'none' : `"${text}"`)
  return (['msg', 'remedy'] as const)
    .filter((name) => rule[name] !== row[name])
    .map((name) => `${name} is ${shown(row[name])} there and ${shown(rule[name])} here`)
    .join('; ')
}

/** Codes of the catalogue that neither the Rego nor the host's own code gives. */
export async function unusedCodes(): Promise<string[]> {
  const texts = await Promise.all(
    (await regoFiles()).map((path) => readFile(join(ROOM, path), 'utf8')),
  )
  const used = new Set(texts.flatMap((text) => codesIn(text).map(({ code }) => code)))
  const host = /^(?:host|input|obligation|policy)\./
  return Object.keys({ ...CATALOGUE, ...REASONS }).filter(
    (code) => !used.has(code) && !host.test(code),
  )
}

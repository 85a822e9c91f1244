/** The admission gates that need the compiler: format, types, tests, writing rules, one catalogue. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CATALOGUE, REASONS, catalogueRow } from '../catalogue.ts'
import { codesIn, lintTree } from './lint.ts'
import type { Finding, Tree } from './lint.ts'
import type { Opa } from './opa.ts'
import { BASE, regoFiles, ROOM } from './sources.ts'

const run = promisify(execFile)
const REGO = ['policy/sallyport', 'policy/default']
const LIMITS = { cwd: BASE, maxBuffer: 64 * 1024 * 1024 }

export interface Gate {
  readonly gate: string
  readonly ok: boolean
  /** What the gate saw, or the compiler's own words. */
  readonly detail: string
}

async function attempt(gate: string, opa: Opa, args: readonly string[]): Promise<Gate> {
  try {
    const { stdout } = await run(opa.path, args, LIMITS)
    return { gate, ok: true, detail: stdout.trim() }
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    return { gate, ok: false, detail: `${stdout}${stderr}`.trim() }
  }
}

/** `opa fmt`: nothing to change. */
export async function checkFormat(opa: Opa): Promise<Gate> {
  return attempt('fmt', opa, ['fmt', '--fail', '--list', ...REGO])
}

/** Rewrites the sources in the compiler's format. */
export async function writeFormat(opa: Opa): Promise<Gate> {
  return attempt('fmt', opa, ['fmt', '--write', ...REGO])
}

/** Strict compilation, typed by the same schemas the host validates with, with our capabilities. */
export async function checkTypes(opa: Opa): Promise<Gate> {
  const strict = ['check', '--strict', '--schema', 'policy/schema']
  const ignore = ['--ignore', '*.json', '--ignore', '*.tar', '--ignore', '*_test.rego']
  const capable = ['--capabilities', 'policy/capabilities.json']
  return attempt('types', opa, [...strict, ...capable, ...ignore, ...REGO])
}

/** The Rego tests, with builtin errors loud. `data` are further files (vectors). */
export async function runRegoTests(opa: Opa, data: readonly string[]): Promise<Gate> {
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
  return attempt('tests', opa, [...args, ...REGO, ...data])
}

/** Lines of the policy's Rego that no test reaches, and the share of those reached. */
export async function coverage(opa: Opa, data: readonly string[]): Promise<{ percent: number }> {
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
  const { stdout } = await run(opa.path, [...args, ...REGO, ...data], LIMITS)
  const report = JSON.parse(stdout) as {
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

/** The writing rules over every customer and default file. */
export async function lintPolicy(opa: Opa): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const path of await regoFiles()) {
    if (!path.startsWith('default/')) continue
    const args = ['parse', '--format', 'json', '--json-include', 'locations', `policy/${path}`]
    const { stdout } = await run(opa.path, args, LIMITS)
    findings.push(...lintTree(JSON.parse(stdout) as Tree, `policy/${path}`))
  }
  return findings
}

/** Codes in the Rego that the catalogue lacks or words otherwise. Needs no compiler. */
export async function lintCatalogue(): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const path of await regoFiles()) {
    const source = await readFile(join(ROOM, path), 'utf8')
    for (const { code, msg, remedy } of codesIn(source)) {
      const reason = Object.hasOwn(REASONS, code)
      const row = catalogueRow(code)
      const known = msg === undefined ? reason : row !== undefined
      const worded = msg === undefined || (row?.msg === msg && row.remedy === remedy)
      if (known && worded) continue
      const at = source.slice(0, source.indexOf(`"${code}"`)).split('\n').length
      const fix = known ? 'word it as policy/catalogue.ts does' : 'add it to policy/catalogue.ts'
      findings.push({ rule: `catalogue ${code}`, file: `policy/${path}`, line: at, fix })
    }
  }
  return findings
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

/**
 * `node policy/toolchain/main.ts build | check | test | fmt`: the compiler's side of the room, until
 * `sallyport policy` calls the same functions. Exit 0 ok, 1 findings, 2 usage, 3 cannot run.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildBundle } from './build.ts'
import {
  checkFormat,
  checkTypes,
  coverage,
  lintCatalogue,
  lintPolicy,
  runRegoTests,
  writeFormat,
} from './check.ts'
import type { Gate } from './check.ts'
import { processEnvironment, resolveOpa } from './opa.ts'
import type { Opa } from './opa.ts'
import { BUNDLE_FILE, LOCK_FILE, publishSchemas } from './sources.ts'
import { vectorData } from './vectors.ts'

const COVERAGE_FLOOR = 95

function show({ gate, ok, detail }: Gate): boolean {
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${gate}${detail === '' ? '' : `\n${detail}`}`)
  return ok
}

async function build(opa: Opa): Promise<boolean> {
  const { archive, lock, moduleBytes } = await buildBundle(opa)
  await writeFile(BUNDLE_FILE, archive)
  await writeFile(LOCK_FILE, `${JSON.stringify(lock, null, 2)}\n`)
  await publishSchemas()
  console.log(`policy/default/bundle.tar  ${archive.length} bytes, module ${moduleBytes} bytes`)
  console.log(`sha256 ${lock.bundle_sha256}`)
  return true
}

async function check(opa: Opa): Promise<boolean> {
  const gates = [await checkFormat(opa), await checkTypes(opa)]
  const findings = [...(await lintPolicy(opa)), ...(await lintCatalogue())]
  const detail = findings.map(({ rule, file, line, fix }) => `${file}:${line} ${rule}: ${fix}`)
  gates.push({ gate: 'lint', ok: findings.length === 0, detail: detail.join('\n') })
  return gates.map(show).every(Boolean)
}

async function test(opa: Opa): Promise<boolean> {
  const directory = await mkdtemp(join(tmpdir(), 'sallyport-vectors-'))
  const data = join(directory, 'vectors.json')
  try {
    await writeFile(data, JSON.stringify(await vectorData()))
    const tests = await runRegoTests(opa, [data])
    const { percent } = tests.ok ? await coverage(opa, [data]) : { percent: 0 }
    const enough = percent >= COVERAGE_FLOOR
    const gate = { gate: 'coverage', ok: enough, detail: `${percent.toFixed(1)} %` }
    return [tests, gate].map(show).every(Boolean)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function format(opa: Opa): Promise<boolean> {
  return show(await writeFormat(opa))
}

const COMMANDS: Readonly<Record<string, (opa: Opa) => Promise<boolean>>> = {
  build,
  check,
  fmt: format,
  test,
}

async function main(): Promise<number> {
  const name = process.argv[2] ?? ''
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (command === undefined) {
    console.error(`usage: node policy/toolchain/main.ts ${Object.keys(COMMANDS).join(' | ')}`)
    return 2
  }
  try {
    const opa = await resolveOpa(processEnvironment())
    console.log(`opa: ${opa.source}`)
    return (await command(opa)) ? 0 : 1
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error))
    return 3
  }
}

process.exitCode = await main()

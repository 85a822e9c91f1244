/**
 * `node policy/toolchain/main.ts build | check | test | fmt`: the compiler's side of the room, for the
 * product's own policy; `sallyport policy` does the same for a site's. Exit 0 ok, 1 findings, 2 usage, 3 cannot run.
 */
import { writeFile } from 'node:fs/promises'
import { buildBundle, makeBundle } from './build.ts'
import { writeFormat } from './check.ts'
import type { Gate } from './check.ts'
import { checkGates, testGates } from './gates.ts'
import { processEnvironment, resolveOpa } from './opa.ts'
import type { Opa } from './opa.ts'
import { BUNDLE_FILE, LOCK_FILE, publishSchemas } from './sources.ts'
import { DEFAULT_TREE } from './tree.ts'

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

async function every(gates: AsyncIterable<Gate>): Promise<boolean> {
  let ok = true
  for await (const gate of gates) ok = show(gate) && ok
  return ok
}

async function check(opa: Opa): Promise<boolean> {
  return every(checkGates(DEFAULT_TREE, opa))
}

async function test(opa: Opa): Promise<boolean> {
  return every(testGates(DEFAULT_TREE, opa, await makeBundle(opa, DEFAULT_TREE)))
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

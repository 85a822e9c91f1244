/** `sallyport policy new|fmt|check|test|build`: a folder of rules, on this machine. */
import type { Command } from 'commander'
import { globalOptions } from './commands/options.ts'
import { Exited } from './exit.ts'
import { writeOut } from './output.ts'
import { made, onTree, pass, showGate, waiting, withCompiler } from './policy-compiler.ts'
import { facts, say, tell } from './print.ts'

export async function make(directory: string, _flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { starter } = await import('#policy-toolchain')
  const made = await starter(directory)
  tell(options, { directory, made }, [
    `${directory} holds ${made.join(', ')}`,
    `next: read ${directory}/README.md, then: sallyport policy test ${directory}`,
  ])
}

export async function format(directory: string, _flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { room, opa } = await withCompiler()
  const gate = await room.formatTree(opa, directory)
  showGate(gate, options)
  if (options.json) say(JSON.stringify({ ok: gate.ok, gates: [gate] }))
  if (!gate.ok) throw new Exited('failed')
}

export async function check(
  directory: string | undefined,
  _flags: object,
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { room, opa } = await withCompiler()
  await onTree(room, directory, async (tree) => pass(room.checkGates(tree, opa), options))
}

export async function test(
  directory: string | undefined,
  _flags: object,
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { room, opa } = await withCompiler()
  await onTree(room, directory, async (tree) =>
    pass(room.testGates(tree, opa, await made(room, opa, tree), waiting(options)), options),
  )
}

export async function build(
  directory: string,
  flags: { out: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { room, opa } = await withCompiler()
  await onTree(room, directory, async (tree) => {
    const bundle = await made(room, opa, tree)
    const archive = room.packed(bundle.files)
    writeOut(flags.out, archive)
    const value = {
      file: flags.out,
      revision: bundle.about.revision,
      bytes: archive.length,
      module_bytes: bundle.moduleBytes,
      signed: false,
      reads: bundle.reads,
    }
    tell(options, value, [
      ...facts([
        ['file', flags.out],
        ['revision', value.revision],
        ['bytes', value.bytes],
        ['module', value.module_bytes],
        ['inputs read', `${bundle.reads.length} (--json lists them)`],
      ]),
      'unsigned: a gateway takes none of these; sallyport policy sign makes one it takes',
    ])
  })
}

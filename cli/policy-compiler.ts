/** What every command on a policy folder does with the compiler: finds it, hands it the folder, says what the gates say. */
import type * as toolchain from '#policy-toolchain'
import type { Gate, Made, Opa, PolicyTree, Progress } from '#policy-toolchain'
import { CliError, Exited } from './exit.ts'
import { plain, say, type PrintOptions } from './print.ts'

export type Toolchain = typeof toolchain

/** The compiler's side of the room, and the compiler; throws CliError `policy.compiler`. */
export async function withCompiler(): Promise<{ readonly room: Toolchain; readonly opa: Opa }> {
  const room = await import('#policy-toolchain')
  try {
    const opa = await room.resolveOpa(room.processEnvironment())
    return { room, opa }
  } catch (cause) {
    const [why = '', next] = (cause instanceof Error ? cause.message : String(cause)).split('\n')
    throw new CliError(
      'the policy cannot be compiled here',
      { code: 'policy.compiler', exit: 'cannot_run', why, next: next?.replace('Next step: ', '') },
      { cause },
    )
  }
}

/** Does `work` on a folder's tree, or on the product's own. */
export async function onTree<T>(
  room: Toolchain,
  directory: string | undefined,
  work: (tree: PolicyTree) => Promise<T>,
): Promise<T> {
  if (directory === undefined) return work(room.DEFAULT_TREE)
  await using tree = await room.stageTree(directory)
  return await work(tree)
}

export function showGate(gate: Gate, options: PrintOptions): void {
  if (options.json) return
  const lines = gate.detail.split('\n').filter((line) => line !== '')
  const one = lines.length === 1 && gate.ok ? `  ${lines[0]}` : ''
  say(`${gate.ok ? 'ok  ' : 'FAIL'}  ${gate.gate.padEnd(9)}${plain(one)}`.trimEnd())
  if (!gate.ok) for (const line of lines) say(`      ${plain(line)}`)
}

/** A line on stderr that counts up, where a person waits; nobody else is told. */
export function waiting({ json }: PrintOptions): Progress {
  if (json || !process.stderr.isTTY) return () => undefined
  let shown = ''
  return (what, share) => {
    const line = share >= 1 ? '' : `      ${what} … ${Math.floor(share * 100)} %`
    if (line === shown) return
    process.stderr.write(`\r\u001b[K${line}`)
    shown = line
  }
}

/** Runs every gate and says so; throws Exited where one fails. */
export async function pass(
  gates: AsyncIterable<Gate>,
  options: PrintOptions,
  last = true,
): Promise<Gate[]> {
  const done: Gate[] = []
  for await (const gate of gates) {
    showGate(gate, options)
    done.push(gate)
  }
  const ok = done.every((gate) => gate.ok)
  if (options.json && (last || !ok)) say(JSON.stringify({ ok, gates: done }))
  if (!ok) throw new Exited('failed')
  return done
}

/** Compiles; what the compiler says of a mistake becomes the error. */
export async function made(
  room: Toolchain,
  opa: Opa,
  tree: PolicyTree,
  issuedAt = 0,
): Promise<Made> {
  try {
    return await room.makeBundle(opa, tree, issuedAt)
  } catch (cause) {
    const stderr = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : ''
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new CliError(
      'the policy does not compile',
      {
        code: 'policy.compile',
        exit: 'failed',
        why: stderr === '' ? message : stderr,
        next: 'sallyport policy check says where; mend it and run this again',
      },
      { cause },
    )
  }
}

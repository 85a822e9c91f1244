/** `sallyport policy eval`, and how a decision is explained rule by rule wherever it was made. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import type { Command } from 'commander'
import type { Input, Point } from '#policy'
import type { ExplainedRule } from '#policy-toolchain'
import { globalOptions } from './commands/options.ts'
import { usage } from './exit.ts'
import { readText } from './input.ts'
import { made, onTree, withCompiler, type Toolchain } from './policy-compiler.ts'
import { facts, plain, tell } from './print.ts'

const NEEDS_GRANT = 'a gateway opens no session without a grant, whatever else allows it'

const isApproved = ({ state }: { readonly state: string | null }): boolean =>
  state === 'approved' || state === 'active'

export async function evaluate(
  what: string,
  flags: { point?: string; input: string; explain?: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { POINT_NAMES, PolicyEngine, inputFor } = await import('#policy')
  const asked = questionOf(readJson(flags.input))
  const named = flags.point ?? asked.point
  if (named === undefined)
    throw usage(
      `${flags.input} does not say which decision it asks for`,
      'add --point, as in session.open',
    )
  const point = POINT_NAMES.find((name) => name === named)
  if (point === undefined)
    throw usage(`${named} is no decision point`, `one of ${POINT_NAMES.join(', ')}`)
  const room = await import('#policy-toolchain')
  const files = await filesOf(room, what)
  const bundle = await room.bundleHere(files)
  const engine = PolicyEngine.unavailable({ now: () => performance.now() })
  await engine.activate(bundle)
  const input = inputFor(point, asked.input as Parameters<typeof inputFor>[1])
  // What a gateway takes for it: the first evaluations of a module are many times slower.
  for (let at = 0; at < 200; at++) engine.decide(point, input, { decisionId: 'd_here' })
  const decision = engine.decide(point, input, { decisionId: 'd_here' })
  const rules = flags.explain === true ? await explained(room, files, point, input) : undefined
  tell(options, { ...decision, ...(rules === undefined ? {} : { rules }) }, [
    ...facts([
      ['effect', decision.effect],
      ...decision.reasons.map((reason) => ['because', oneLine(reason)] as const),
      ...decision.denials.flatMap((denial) => [
        ['not', oneLine(denial)] as const,
        ...(denial.next === undefined ? [] : [['next', denial.next] as const]),
      ]),
      ...(decision.allow && point === 'session.open' && !input.grants.some(isApproved)
        ? [['but', NEEDS_GRANT] as const]
        : []),
      ['revision', decision.revision],
      ['took', `${decision.eval_us} µs`],
    ]),
    ...(rules === undefined ? [] : explainedLines(rules)),
  ])
}

/** An input as it is, or in a vector of a folder, or in a logged decision (`explain --json`). */
function questionOf(value: unknown): {
  readonly point: string | undefined
  readonly input: unknown
} {
  if (typeof value !== 'object' || value === null) return { point: undefined, input: value }
  const { point, action, input } = value as Partial<Record<'point' | 'action' | 'input', unknown>>
  const name = input === undefined ? action : point
  return {
    point: typeof name === 'string' ? name : undefined,
    input: input === undefined ? value : input,
  }
}

function oneLine(one: {
  readonly code: string
  readonly msg?: string
  readonly ref?: string
}): string {
  const { code, msg, ref } = one
  return [code, msg, ref === undefined ? undefined : `(${ref})`].filter(Boolean).join('  ')
}

async function filesOf(room: Toolchain, what: string): Promise<ReadonlyMap<string, Uint8Array>> {
  if (!existsSync(what)) throw usage(`${what} is not there`, 'name a policy folder or a bundle')
  if (!statSync(what).isDirectory()) return room.untrusted(readFileSync(what))
  const { opa } = await withCompiler()
  return onTree(room, what, async (tree) => (await made(room, opa, tree)).files)
}

function readJson(file: string): unknown {
  const text = readText(file, 'input')
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw usage(`${file} is not JSON`, 'mend it and run this again', { cause })
  }
}

/** Rule by rule, by the compiler's own engine over the bundle's own sources. */
export async function explained(
  room: Toolchain,
  files: ReadonlyMap<string, Uint8Array>,
  point: Point,
  input: Input,
): Promise<ExplainedRule[]> {
  const { opa } = await withCompiler()
  const data: unknown = JSON.parse(new TextDecoder().decode(files.get('data.json')))
  return room.explain(opa, { rego: room.regoOf(files), data, point, input })
}

/** What fired with the expressions that failed, then in one line each what held. */
export function explainedLines(rules: readonly ExplainedRule[]): string[] {
  const lines: string[] = ['']
  for (const { kind, fired, code, file, row, failed } of rules) {
    if (kind === 'deny' && !fired) continue
    lines.push(`${fired ? kind : `no ${kind}`}  ${code}  ${file}:${row}`)
    for (const { file: where, row: at, source, where: values } of failed) {
      const known = Object.entries(values).map(
        ([name, value]) => `${name}=${JSON.stringify(value)}`,
      )
      const told = known.length === 0 ? '' : `   with ${known.join(' ')}`
      lines.push(plain(`    failed  ${where}:${at}  ${source}${told}`))
    }
  }
  const held = rules.filter(({ kind, fired }) => kind === 'deny' && !fired)
  if (held.length > 0) lines.push('', `did not apply: ${held.map(({ code }) => code).join(', ')}`)
  return lines
}

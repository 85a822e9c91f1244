/**
 * `sallyport policy`: what a security team does with its own rules on its own machine. Nothing here
 * asks a gateway; what does is in policy-node.ts.
 */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { Input, Point } from '#policy'
import type * as toolchain from '#policy-toolchain'
import type { ExplainedRule, Gate, Made, Opa, PolicyTree, Progress } from '#policy-toolchain'
import { CliError, Exited, usage } from '../exit.ts'
import {
  readBytes,
  readDuration,
  readInteger,
  readNewSecret,
  readSecret,
  readText,
} from '../input.ts'
import { writeOut } from '../output.ts'
import { facts, instant, plain, say, tell, type PrintOptions } from '../print.ts'
import { globalOptions } from './options.ts'

type Toolchain = typeof toolchain

export function registerPolicy(program: Command): void {
  const policy = program
    .command('policy')
    .description('the rules that decide: write, prove, sign, roll out, ask why')
    .addHelpText(
      'after',
      `
A site's rules live in a folder of their own (policy new DIR). check, test and sign compile it with
opa, which is taken from PATH, from the cache, or installed with Go; gateways need none.`,
    )
  policy
    .command('new')
    .description('make a folder with the default rules, data and vectors, to change')
    .argument('<dir>', 'a directory that does not exist or is empty')
    .action(make)
  policy
    .command('fmt')
    .description('write the rules in the compiler’s format')
    .argument('<dir>', 'the policy folder')
    .action(format)
  policy
    .command('check')
    .alias('lint')
    .description('format, strict types, the rules of writing, one catalogue of codes')
    .argument('[dir]', 'the policy folder; without one, the product’s own policy')
    .action(check)
  policy
    .command('test')
    .description(
      'Rego tests, coverage, every vector in two engines and with each field wrong, speed',
    )
    .argument('[dir]', 'the policy folder; without one, the product’s own policy')
    .action(test)
  policy
    .command('build')
    .description('compile into an unsigned bundle')
    .argument('<dir>', 'the policy folder')
    .requiredOption('--out <file>', 'where to write it')
    .action(build)
  policy
    .command('keygen')
    .description('make a key that signs bundles (P-256)')
    .requiredOption(
      '--out <file>',
      'where the private key goes, 0600; the public one beside it as .pub',
    )
    .option('--passphrase-file <file>', 'what seals it; - reads stdin, without one you are asked')
    .option('--unsealed', 'leave it without a passphrase')
    .action(keygen)
  policy
    .command('sign')
    .description('pass every gate, compile, and sign the bundle')
    .argument('<dir>', 'the policy folder')
    .requiredOption('--key <file>', 'PEM of the signing key')
    .requiredOption('--seq <n>', 'sequence number, higher than that of every release before')
    .requiredOption('--out <file>', 'where to write the bundle')
    .option('--passphrase-file <file>', 'what opens the key; - reads stdin')
    .action(sign)
  policy
    .command('permit')
    .description('sign a downgrade permit: one older bundle may come back, once')
    .argument('<bundle>', 'the signed bundle to go back to')
    .requiredOption('--key <file>', 'PEM of the signing key')
    .requiredOption(
      '--over <seq>',
      'the highest sequence in force on the gateway, as status shows it',
    )
    .requiredOption('--for <duration>', 'how long it may be used, as in 1h')
    .requiredOption('--out <file>', 'where to write it')
    .option('--passphrase-file <file>', 'what opens the key; - reads stdin')
    .action(permit)
  policy
    .command('eval')
    .description('decide one input here, by a folder or a bundle')
    .argument('<what>', 'policy folder, or bundle file')
    .option('--point <name>', 'the decision point, as in session.open; a vector names its own')
    .requiredOption(
      '--input <file>',
      'JSON: an input, a vector, or what explain --json gave; what it leaves out is unknown (null)',
    )
    .option('--explain', 'rule by rule: what fired, what held, and why')
    .action(evaluate)
}

/** The compiler's side of the room, and the compiler; throws CliError `policy.compiler`. */
async function withCompiler(): Promise<{ readonly room: Toolchain; readonly opa: Opa }> {
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
async function onTree<T>(
  room: Toolchain,
  directory: string | undefined,
  work: (tree: PolicyTree) => Promise<T>,
): Promise<T> {
  if (directory === undefined) return work(room.DEFAULT_TREE)
  await using tree = await room.stageTree(directory)
  return await work(tree)
}

function showGate(gate: Gate, options: PrintOptions): void {
  if (options.json) return
  const lines = gate.detail.split('\n').filter((line) => line !== '')
  const one = lines.length === 1 && gate.ok ? `  ${lines[0]}` : ''
  say(`${gate.ok ? 'ok  ' : 'FAIL'}  ${gate.gate.padEnd(9)}${plain(one)}`.trimEnd())
  if (!gate.ok) for (const line of lines) say(`      ${plain(line)}`)
}

/** A line on stderr that counts up, where a person waits; nobody else is told. */
function waiting({ json }: PrintOptions): Progress {
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
async function pass(
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

async function make(directory: string, _flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { starter } = await import('#policy-toolchain')
  const made = await starter(directory)
  tell(options, { directory, made }, [
    `${directory} holds ${made.join(', ')}`,
    `next: read ${directory}/README.md, then: sallyport policy test ${directory}`,
  ])
}

async function format(directory: string, _flags: object, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { room, opa } = await withCompiler()
  const gate = await room.formatTree(opa, directory)
  showGate(gate, options)
  if (options.json) say(JSON.stringify({ ok: gate.ok, gates: [gate] }))
  if (!gate.ok) throw new Exited('failed')
}

async function check(
  directory: string | undefined,
  _flags: object,
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { room, opa } = await withCompiler()
  await onTree(room, directory, async (tree) => pass(room.checkGates(tree, opa), options))
}

async function test(
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

/** Compiles; what the compiler says of a mistake becomes the error. */
async function made(room: Toolchain, opa: Opa, tree: PolicyTree, issuedAt = 0): Promise<Made> {
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

async function build(directory: string, flags: { out: string }, command: Command): Promise<void> {
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

async function keygen(
  flags: { out: string; passphraseFile?: string; unsealed?: boolean },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { out, passphraseFile, unsealed = false } = flags
  if (unsealed && passphraseFile !== undefined)
    throw usage('a passphrase for a key that is to stay unsealed', 'give one of the two')
  for (const path of [out, `${out}.pub`])
    if (existsSync(path))
      throw usage(`${path} exists`, 'name another file; a key is never replaced')
  const passphrase = unsealed
    ? undefined
    : passphraseFile === undefined
      ? await readNewSecret(undefined, 'passphrase', 12)
      : await readSecret(passphraseFile, 'passphrase')
  const { newSigningKey } = await import('#policy-toolchain')
  const key = newSigningKey(passphrase)
  writeFileSync(out, key.privateKey, { mode: 0o600, flag: 'wx', flush: true })
  writeFileSync(`${out}.pub`, key.publicKey, { mode: 0o644, flag: 'wx', flush: true })
  tell(options, { key: out, public_key: `${out}.pub`, key_id: key.keyId }, [
    ...facts([
      ['private key', out],
      ['public key', `${out}.pub`],
      ['key id', key.keyId],
    ]),
    'keep the private key off every gateway; gateways are told the public one (policy.trust in the configuration)',
  ])
}

async function sign(
  directory: string,
  flags: { key: string; seq: string; out: string; passphraseFile?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const seq = readInteger(flags.seq, 'sequence number', 1, 1_000_000_000)
  const pem = readText(flags.key, 'signing key')
  const passphrase = await opener(pem, flags.passphraseFile)
  const { room, opa } = await withCompiler()
  await onTree(room, directory, async (tree) => {
    const iat = Math.floor(Date.now() / 1000)
    const gates = await pass(room.checkGates(tree, opa), options, false)
    const bundle = await made(room, opa, tree, iat)
    gates.push(...(await pass(room.testGates(tree, opa, bundle, waiting(options)), options, false)))
    const release = room.signRelease(bundle.files, { pem, passphrase, seq, iat })
    writeOut(flags.out, release.archive)
    const { keyId, digest, files } = release
    const value = {
      file: flags.out,
      revision: bundle.about.revision,
      seq,
      key_id: keyId,
      sha256: digest,
      gates,
      files,
    }
    tell(options, value, [
      ...facts([
        ['signed', flags.out],
        ['revision', value.revision],
        ['seq', seq],
        ['key id', keyId],
        ['sha256', digest],
        ['files', files.length],
      ]),
      `next: sallyport policy push ${flags.out}`,
    ])
  })
}

async function permit(
  bundle: string,
  flags: { key: string; over: string; for: string; out: string; passphraseFile?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const over = readInteger(flags.over, 'sequence number', 1, 1_000_000_000)
  const expiresAt = Math.floor(Date.now() / 1000) + readDuration(flags.for)
  const pem = readText(flags.key, 'signing key')
  const archive = readBytes(bundle, 'bundle')
  const passphrase = await opener(pem, flags.passphraseFile)
  const { permitFor } = await import('#policy-toolchain')
  const made = permitFor(archive, { over, expiresAt }, { pem, passphrase })
  if (made.seq >= over)
    throw usage(
      `the bundle is number ${made.seq}: it needs no permit over ${over}`,
      `sallyport policy push ${bundle}`,
    )
  writeOut(flags.out, Buffer.from(`${made.token}\n`))
  const { seq, digest, keyId } = made
  const value = { file: flags.out, seq, over, sha256: digest, key_id: keyId, expires_at: expiresAt }
  tell(options, value, [
    ...facts([
      ['permit', flags.out],
      ['goes back to', seq],
      ['over', over],
      ['sha256', digest],
      ['key id', keyId],
      ['until', instant(expiresAt)],
    ]),
    `next: sallyport policy push ${bundle} --permit ${flags.out}`,
  ])
}

async function opener(pem: string, file: string | undefined): Promise<string | undefined> {
  if (file !== undefined) return readSecret(file, 'passphrase')
  return pem.includes('ENCRYPTED') ? readSecret(undefined, 'passphrase') : undefined
}

const NEEDS_GRANT = 'a gateway opens no session without a grant, whatever else allows it'

const isApproved = ({ state }: { readonly state: string | null }): boolean =>
  state === 'approved' || state === 'active'

async function evaluate(
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

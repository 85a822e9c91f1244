/** `sallyport audit evidence`: what happened in a time, and the proof that nothing else did, in one file. */
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { AuditError, Evidence } from '#audit'
import { CliError, Exited, usage, type Exit } from '../exit.ts'
import { readInteger, readPrivate, readText } from '../input.ts'
import { readKeys } from '../keys.ts'
import { facts, plain, tell } from '../print.ts'
import { collect, globalOptions } from './options.ts'

interface EvidenceFlags {
  readonly log: string[]
  readonly node?: string[]
  readonly key: string[]
  readonly from: string
  readonly to: string
  readonly framework?: string
  readonly device?: string
  readonly lead: string
  readonly catalogue?: string
  readonly out?: string
  readonly sign?: string[]
}

const dayMs = 86_400_000

export function registerEvidence(audit: Command): void {
  audit
    .command('evidence')
    .description('one file that shows what happened in a time and proves that nothing else did')
    .requiredOption(
      '--log <dir>',
      'the log, or a copy of it; or a node’s folder with all its epochs; once for each gateway of the site',
      collect,
    )
    .option(
      '--node <name>',
      'a gateway that the site has: one whose log is not given is named; may be repeated',
      collect,
    )
    .requiredOption(
      '--key <file|vkey>',
      'a verifier key of each log, of any epoch; may be repeated',
      collect,
    )
    .requiredOption('--from <time>', 'a day (2026-03-01) or an instant (2026-03-01T08:00:00Z)')
    .requiredOption('--to <time>', 'a day, to its end, or an instant')
    .option('--framework <id>', 'one framework of the catalogue; default all')
    .option('--device <name>', 'what the report is about; the proof is of everything')
    .option('--lead <days>', 'how long before, for grants that were in force', '31')
    .option('--catalogue <file>', 'entries of your own, over the shipped ones by their id')
    .option(
      '--sign <file>',
      'a private key of the log (PEM) to vouch for the package with; give each of them',
      collect,
    )
    .option('--out <file>', 'default: a name made of framework and time')
    .action(evidence)
}

/** A day or an instant, UTC; `end`: a day is taken to its last millisecond. */
export function readTime(text: string, what: string, end: boolean): number {
  const isDay = /^\d{4}-\d{2}-\d{2}$/.test(text)
  const isInstant = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})$/.test(
    text,
  )
  const ms = isDay || isInstant ? Date.parse(text) : Number.NaN
  if (Number.isNaN(ms))
    throw usage(`--${what} ${text} is no time`, 'give 2026-03-01 or 2026-03-01T08:00:00Z')
  return isDay && end ? ms + dayMs - 1 : ms
}

async function evidence(flags: EvidenceFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { buildEvidence, buildSiteEvidence, readCatalogue, AuditError } = await import('#audit')
  const own = flags.catalogue === undefined ? [] : readJson(flags.catalogue)
  const catalogue = readCatalogue(own)
  const frameworks = new Set(catalogue.controls.map(({ framework }) => framework))
  if (flags.framework !== undefined && !frameworks.has(flags.framework))
    throw usage(`no framework ${flags.framework}`, `known are ${[...frameworks].join(', ')}`)
  const [first = '', ...others] = flags.log
  const asked = {
    vkeys: flags.key.flatMap(readKeys),
    from: readTime(flags.from, 'from', false),
    to: readTime(flags.to, 'to', true),
    leadMs: readInteger(flags.lead, 'lead', 0, 36_500) * dayMs,
    catalogue,
    ...(flags.framework === undefined ? {} : { framework: flags.framework }),
    ...(flags.device === undefined ? {} : { device: flags.device }),
    ...(flags.sign === undefined ? {} : { signWith: flags.sign.map(signingKey), now: Date.now() }),
  }
  let made: Evidence
  try {
    made =
      others.length === 0 && flags.node === undefined
        ? buildEvidence({ ...asked, directory: first })
        : buildSiteEvidence({ ...asked, directories: flags.log, nodes: flags.node ?? [] })
  } catch (error) {
    const known = error instanceof AuditError ? error : null
    throw refusalOf(known, error, others.length === 0 ? first : 'DIR')
  }
  const out = flags.out ?? made.name
  writeFileSync(out, made.bytes, { mode: 0o600 })
  tell(
    options,
    {
      file: out,
      events: made.events,
      pruned: made.pruned,
      epochs: made.epochs,
      ...(made.nodes.length === 0 ? {} : { nodes: made.nodes }),
      ...made.judgement,
    },
    lines(out, made),
  )
  const exit = exitOf(made)
  if (exit !== 'ok') throw new Exited(exit)
}

/** Why there is no package, for the person who asked for one. */
function refusalOf(known: AuditError | null, cause: unknown, log: string): CliError {
  if (known?.code === 'evidence.range')
    return new CliError('there is nothing to make a package of', {
      code: known.code,
      exit: 'usage',
      why: known.message,
      next: 'ask for another time, or give the directory of the log that covers it',
    })
  if (known?.code === 'key.invalid') return usage(known.message, 'see --key and --sign', { cause })
  if (known?.code === 'log.origin')
    return usage(known.message, 'give --log once for each gateway of one site', { cause })
  return new CliError('the log does not hold', {
    code: 'log.violated',
    exit: 'failed',
    why: cause instanceof Error ? cause.message : String(cause),
    next: `sallyport audit verify --log ${log} names the place`,
  })
}

/** A private key of the log, from its file. Throws usage. */
export function signingKey(path: string): KeyObject {
  const pem = readPrivate(path, 'key')
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw usage(`${path} does not hold a private key`, undefined, { cause })
  }
}

function readJson(path: string): object[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(readText(path, 'catalogue'))
  } catch (cause) {
    throw usage(`${path} is not JSON`, undefined, { cause })
  }
  if (!Array.isArray(parsed)) throw usage(`${path} is not a list of catalogue entries`)
  return parsed as object[]
}

function exitOf({ judgement }: Evidence): Exit {
  if (judgement.exceptions.length > 0) return 'failed'
  return judgement.outcome === 'proven' ? 'ok' : 'usage'
}

/** Where an event stands: the epoch is named where there are several, and so is the gateway. */
function placed({
  node,
  epoch,
  idx,
}: Pick<Evidence['judgement']['exceptions'][number], 'node' | 'epoch' | 'idx'>): string {
  const of = epoch === null ? `event ${idx}` : `event ${idx} of epoch ${epoch}`
  return node === undefined ? of : `${of} of ${plain(node)}`
}

function lines(out: string, { judgement, epochs, nodes, events, pruned }: Evidence): string[] {
  const time = (ms: number): string => new Date(ms).toISOString()
  return [
    `${judgement.words}: ${out}`,
    ...facts([
      ...(nodes.length === 0 ? [] : [['gateways', plain(nodes.join(', '))] as const]),
      ...epochs.map(
        ({ origin, first, last }) =>
          ['log', `${plain(origin)}, events ${first} to ${last - 1}`] as const,
      ),
      ['events', events],
      ['exceptions', judgement.exceptions.length],
    ]),
    ...judgement.gaps.map(
      (gap) => `no heartbeat (${gap.kind}) from ${time(gap.from)} to ${time(gap.to)}`,
    ),
    ...judgement.unconfirmed.map((one) => `${placed(one)}: ${plain(one.message)}`),
    ...judgement.untold.map(plain),
    ...(pruned === 0
      ? []
      : [`the events before ${pruned} were pruned: an archive given as --log has them`]),
    ...judgement.exceptions.map((one) => `${placed(one)}: ${plain(one.what)}`),
    'Mapping, not legal advice. Check it: node verify.mjs, with the program and the keys kept elsewhere.',
  ]
}

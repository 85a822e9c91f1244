/** `sallyport grant export`, `grant verify`: who approved what, as a file that needs no gateway. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { GrantProof, GrantRef } from '#approval'
import { Exited, usage } from '../exit.ts'
import { grantFacts, grantId, LEVELS } from '../grant.ts'
import { facts, instant, plain, say, tell } from '../print.ts'
import { globalOptions } from './options.ts'

export function registerGrantFile(program: Command): void {
  const grant = program
    .command('grant')
    .description('a grant: what was asked, and its signatures as a file')
  grant
    .command('show <grant>')
    .description('what was asked, for whom, and what became of it')
    .action(async (id: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Grant: schema } = await import('../client.ts')
      const api = await openApi(options)
      const found = await api.call(schema, 'GET', `/grants/${grantId(id)}`)
      tell(options, found, [`${found.id} is ${found.state}`, ...(await grantFacts(found))])
    })
  grant
    .command('export <grant>')
    .description('print a grant with its signed approvals as JSON')
    .action(async (id: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, SignedGrant } = await import('../client.ts')
      const api = await openApi(options)
      const signed = await api.call(SignedGrant, 'GET', `/grants/${grantId(id)}/signed`)
      say(JSON.stringify(signed, undefined, 2))
    })
  grant
    .command('verify <file>')
    .description('check such a file by itself: exit 0 where every approval is signed, 1 where not')
    .option('--keys <file>', 'public keys of approvers you know: base64url SPKI and a name a line')
    .option('--quorum <n>', 'how many of these people must have signed, instead of every approval')
    .action(verifyGrant)
  registerApproversFile(program)
}

/** `approvers sign`: an approver's signature under a new set of approvers of a device. */
function registerApproversFile(program: Command): void {
  program
    .command('approvers')
    .description('who must have signed before a device in two-key mode lets anybody in')
    .command('sign <file>')
    .description('prints a link: the page shows the set, and gives your signature under it')
    .action(async (file: string, _flags: unknown, command: Command) => {
      const options = globalOptions(command)
      const { openApi, Ceremony } = await import('../client.ts')
      const api = await openApi(options)
      const body = { set: readJson(file) }
      const asked = await api.call(Ceremony, 'POST', '/approvers/signature', body)
      tell(options, { open: asked.url, expires_at: asked.expires_at }, [`open    ${asked.url}`])
    })
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw usage(`${path} cannot be read: ${why}`, 'it must be a file of JSON')
  }
}

/** Lines of a key and, after a blank, whose it is; `#` begins a comment. */
function readKeys(path: string | undefined): ReadonlyMap<string, string | null> | undefined {
  if (path === undefined) return undefined
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw usage(`${path} cannot be read: ${why}`, 'one key a line, as `passkey list --json` has it')
  }
  const lines = text.split('\n').map((line) => line.replace(/#.*/, '').trim())
  return new Map(
    lines
      .filter((line) => line !== '')
      .map((line): [string, string | null] => {
        const [key = '', ...name] = line.split(/\s+/)
        return [key, name.length === 0 ? null : name.join(' ')]
      }),
  )
}

function readQuorum(
  { quorum }: VerifyFlags,
  keys: ReadonlyMap<string, string | null> | undefined,
): number | undefined {
  if (quorum === undefined) return undefined
  if (keys === undefined)
    throw usage('--quorum counts people by their keys', 'name the keys: --keys FILE')
  // By the gateway's word alone two keys of one person would be two.
  if ([...keys.values()].includes(null))
    throw usage('--quorum counts people, and a key has no name', 'write `KEY NAME` in each line')
  if (/^[1-9]\d?$/.test(quorum)) return Number(quorum)
  throw usage(`${JSON.stringify(quorum)} is no number of people`, 'write it as --quorum 2')
}

interface VerifyFlags {
  readonly keys?: string
  readonly quorum?: string
}

async function verifyGrant(file: string, flags: VerifyFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { checkSignedGrant, readSignedGrant, recurrenceInWords, windowsInWords } =
    await import('#approval')
  const grant = readSignedGrant(readJson(file))
  if (grant === undefined)
    throw usage(`${file} is not a signed grant`, 'give the output of `sallyport grant export`')
  const pinned = readKeys(flags.keys)
  const quorum = readQuorum(flags, pinned)
  const proof = checkSignedGrant(grant, pinned, quorum)
  const { recurring, ot_windows: windows } = proof.statement
  const words = {
    addresses: windowsInWords(windows ?? []),
    only: recurring === undefined ? null : recurrenceInWords(recurring),
  }
  tell(options, proof, proofLines(proof, words, pinned !== undefined, quorum))
  if (!proof.proven) throw new Exited('failed')
}

const refOf = (ref: GrantRef | undefined) =>
  ref === undefined ? null : `${ref.grant}, statement ${ref.sha256}`

const WORDS = { signed: 'signed by', unsigned: 'NOT signed', refused: 'REFUSED' }

/** Whose signature it is says the reader's own list; the rest of the line is what the gateway wrote beside it. */
function approvalLine({ person, by, email, at, state, fault }: GrantProof['approvals'][number]) {
  const whose = state === 'signed' ? ` ${plain(person ?? 'a key without a name')}` : ''
  const why = fault === null ? '' : ` (${fault})`
  return `${WORDS[state]}${whose}${why}; the gateway says: ${plain(email ?? by)}, ${instant(at)}`
}

function proofLines(
  { hash, statement, approvals, people, proven }: GrantProof,
  { addresses, only }: { readonly addresses: string; readonly only: string | null },
  pinned: boolean,
  quorum: number | undefined,
): string[] {
  const said =
    quorum === undefined
      ? 'proven: every approval signs this statement'
      : `proven: ${people} people signed this statement, ${quorum} must have`
  return [
    ...facts([
      ['grant', statement.id],
      ['statement', hash],
      ['who', statement.requester],
      ['where', `${statement.devices.join(',')}/${statement.processes.join(',')}`],
      ['window', `${instant(statement.not_before)} to ${instant(statement.not_after)}`],
      ['only', only],
      ['may', LEVELS[statement.ot_level] ?? `level ${statement.ot_level}`],
      ['addresses', addresses || 'all'],
      ['how long', `${statement.max_duration_s} s from the first use`],
      ['sessions', statement.max_uses?.toString() ?? null],
      ['bytes', statement.max_bytes?.toString() ?? null],
      ['extends', refOf(statement.extends)],
      ['instead of', refOf(statement.supersedes)],
      ['sealed', statement.sealed && `until ${statement.sealed.quorum} people break the seal`],
      ['breaks the seal of', refOf(statement.unseals)],
      ['reason', plain(statement.reason)],
    ]),
    ...approvals.map(approvalLine),
    ...(approvals.length === 0 ? ['nobody approved it'] : []),
    proven ? said : `not ${said.replace(': every', ': not every')}`,
    ...(proven && !pinned
      ? ['whose keys they are, the file alone cannot say: add --keys FILE']
      : []),
  ]
}

/** `sallyport grant export`, `grant verify`: who approved what, as a file that needs no gateway. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { GrantProof } from '#approval'
import { Exited, usage } from '../exit.ts'
import { facts, instant, plain, say, tell } from '../print.ts'
import { grantId } from './grant.ts'
import { globalOptions } from './options.ts'

export function registerGrantFile(program: Command): void {
  const grant = program.command('grant').description('a grant and its signatures as a file')
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
    .option('--keys <file>', 'public keys of approvers you know, one base64url SPKI a line')
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

function readKeys(path: string | undefined): ReadonlySet<string> | undefined {
  if (path === undefined) return undefined
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw usage(`${path} cannot be read: ${why}`, 'one key a line, as `passkey list --json` has it')
  }
  const lines = text.split('\n').map((line) => line.replace(/#.*/, '').trim())
  return new Set(lines.filter((line) => line !== ''))
}

async function verifyGrant(
  file: string,
  flags: { readonly keys?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { checkSignedGrant, readSignedGrant } = await import('#approval')
  const grant = readSignedGrant(readJson(file))
  if (grant === undefined)
    throw usage(`${file} is not a signed grant`, 'give the output of `sallyport grant export`')
  const pinned = readKeys(flags.keys)
  const proof = checkSignedGrant(grant, pinned)
  tell(options, proof, proofLines(proof, pinned !== undefined))
  if (!proof.proven) throw new Exited('failed')
}

const WORDS = { signed: 'signed by', unsigned: 'NOT signed by', refused: 'REFUSED, said to be by' }

function proofLines({ hash, statement, approvals, proven }: GrantProof, pinned: boolean): string[] {
  return [
    ...facts([
      ['grant', statement.id],
      ['statement', hash],
      ['who', statement.requester],
      ['where', `${statement.devices.join(',')}/${statement.processes.join(',')}`],
      ['window', `${instant(statement.not_before)} to ${instant(statement.not_after)}`],
      ['how long', `${statement.max_duration_s} s from the first use`],
      ['reason', plain(statement.reason)],
    ]),
    ...approvals.map(
      ({ by, email, at, state, fault }) =>
        `${WORDS[state]} ${plain(email ?? by)}, ${instant(at)}${fault === null ? '' : ` (${fault})`}`,
    ),
    ...(approvals.length === 0 ? ['nobody approved it'] : []),
    proven ? 'proven: every approval signs this statement' : 'not proven',
    ...(proven && !pinned
      ? ['whose keys they are, the file alone cannot say: add --keys FILE']
      : []),
  ]
}

/** `sallyport ca revoke | crl | certificates`: ending certificates, and the lists that tell of it. */
import type { Command } from 'commander'
import type { RevocationList } from '#api'
import { usage } from '../exit.ts'
import { readInteger, readName } from '../input.ts'
import { writeOut } from '../output.ts'
import { facts, instant, show, tell } from '../print.ts'
import { cutLines } from './device.ts'
import { globalOptions } from './options.ts'

/** RFC 5280 5.3.1; the API takes the same. */
const REASONS: readonly string[] = [
  'unspecified',
  'keyCompromise',
  'affiliationChanged',
  'superseded',
  'cessationOfOperation',
  'privilegeWithdrawn',
]
/** A lost key: of a device, and of an issuing CA. Neither may be said of the other. */
const LOST_DEVICE_KEY = 'keyCompromise'
const LOST_CA_KEY = 'cACompromise'
const STILL_TRUSTED =
  'whoever has that CA key can still pose as a gateway to agents: they trust the pinned root; make a new one: sallyport ca rotate --root --now, then pin it on every device'
const ISSUER_REASONS = REASONS.map((each) => (each === LOST_DEVICE_KEY ? LOST_CA_KEY : each))

interface RevokeFlags {
  readonly device?: string
  readonly issuer?: string
  readonly reason: string
  readonly comment?: string
}

/** Adds to the command `ca`, which another file may have made. */
export function registerCaRevocation(program: Command): void {
  const ca =
    program.commands.find((each) => each.name() === 'ca') ??
    program.command('ca').description('the certificate authority of the gateway')
  ca.command('revoke [serial]')
    .description(
      'end one certificate, all of a device, or all of an issuing CA; tunnels and sessions are cut',
    )
    .option('--device <id>', 'every certificate and token of this device')
    .option('--issuer <id>', 'everything that this issuing CA signed; after ca rotate --now')
    .requiredOption(
      '--reason <reason>',
      `${REASONS.join(', ')}; of an issuer ${LOST_CA_KEY} in place of ${LOST_DEVICE_KEY}`,
    )
    .option('--comment <text>', 'in your own words; it is logged')
    .action(revoke)
  ca.command('crl')
    .description('the current revocation lists, or one of them as a file')
    .option('--issuer <id>', 'key identifier of the issuing CA, where there are several')
    .option('--out <file>', 'write the list there, as PEM')
    .action(crl)
  ca.command('certificates')
    .description('what was issued, newest first')
    .option('--device <id>', 'of this device only')
    .option('--limit <n>', 'at most this many', '100')
    .action(certificates)
}

function readSerial(text: string): string {
  const serial = text.toLowerCase().replaceAll(':', '')
  if (/^[0-9a-f]{32}$/.test(serial)) return serial
  throw usage(
    `${JSON.stringify(text)} is not a serial number`,
    'serials are 32 hex digits: sallyport ca certificates',
  )
}

function readIssuer(text: string): string {
  const id = text.toLowerCase().replaceAll(':', '')
  if (/^[0-9a-f]{8,64}$/.test(id)) return id
  throw usage(
    `${JSON.stringify(text)} is not the key id of an issuing CA`,
    'the first column of: sallyport ca crl',
  )
}

function assertReason(reason: string, ofIssuer: boolean): void {
  if (ofIssuer && reason === LOST_DEVICE_KEY)
    throw usage(
      `${LOST_DEVICE_KEY} is about the key of a device`,
      `for a lost CA key say ${LOST_CA_KEY}`,
    )
  const reasons = ofIssuer ? ISSUER_REASONS : REASONS
  if (!reasons.includes(reason))
    throw usage(`${JSON.stringify(reason)} is not a reason`, `one of ${reasons.join(', ')}`)
}

async function revoke(
  serial: string | undefined,
  { device, issuer, reason, comment }: RevokeFlags,
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  if ([serial, device, issuer].filter((each) => each !== undefined).length !== 1)
    throw usage('name one thing to revoke', 'give a serial, or --device ID, or --issuer ID')
  assertReason(reason, issuer !== undefined)
  const body = { reason, ...(comment === undefined ? {} : { comment }) }
  const { openApi, Revocation, RevokedDevice } = await import('../client.ts')
  if (serial !== undefined) {
    const path = `/certificates/${readSerial(serial)}/revoke`
    const ended = await (await openApi(options)).call(Revocation, 'POST', path, body)
    tell(options, ended, [...cutLines(ended), 'next: the list that says so: sallyport ca crl'])
    return
  }
  if (issuer !== undefined) {
    const path = `/ca/issuers/${readIssuer(issuer)}/revoke`
    const ended = await (await openApi(options)).call(Revocation, 'POST', path, body)
    tell(options, ended, [
      ...cutLines(ended),
      'next: a new token for each device that has no live certificate now: sallyport device token ID',
      ...(reason === LOST_CA_KEY ? [STILL_TRUSTED] : []),
    ])
    return
  }
  const path = `/devices/${readName(device ?? '', 'device')}/revoke`
  const ended = await (await openApi(options)).call(RevokedDevice, 'POST', path, body)
  tell(options, ended, [
    `${ended.device.id} is ${ended.device.state}`,
    ...cutLines(ended.revocation),
    `next: a new identity for it: sallyport device replace ${ended.device.id} --reason …`,
  ])
}

async function crl(
  flags: { readonly issuer?: string; readonly out?: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const { all, openApi, RevocationList: item } = await import('../client.ts')
  const items = await all(await openApi(options), item, 'GET', '/ca/crls')
  const chosen = items.filter(({ issuer }) => flags.issuer === undefined || issuer === flags.issuer)
  if (flags.out === undefined) {
    show(options, chosen, {
      head: ['issuer', 'number', 'from', 'until', 'revoked', 'address'],
      rows: chosen.map((row) => [
        row.issuer,
        row.number,
        instant(row.this_update),
        instant(row.next_update),
        row.entries,
        row.url,
      ]),
      empty: 'no issuing CA of this gateway has its key at hand',
    })
    return
  }
  const [list, more] = chosen
  if (list === undefined || more !== undefined)
    throw usage(
      list === undefined ? 'no such issuing CA' : 'there are several issuing CAs',
      `--issuer ${items.map(({ issuer }) => issuer).join(' or ')}`,
    )
  writeOut(flags.out, list.pem)
  tell(options, list, [`wrote ${flags.out}`, ...listLines(list, flags.out)])
}

function listLines(list: RevocationList, file: string): string[] {
  return [
    ...facts([
      ['issuer', list.issuer],
      ['number', list.number],
      ['until', instant(list.next_update)],
      ['revoked', list.entries],
    ]),
    `next: read it: openssl crl -noout -text -in ${file}`,
  ]
}

async function certificates(
  flags: { readonly device?: string; readonly limit: string },
  command: Command,
): Promise<void> {
  const options = globalOptions(command)
  const limit = readInteger(flags.limit, '--limit', 1, 10_000)
  const query = new URLSearchParams()
  if (flags.device !== undefined) query.set('device', readName(flags.device, 'device'))
  const { all, openApi, Certificate: item } = await import('../client.ts')
  const path = `/certificates?${query.toString()}`
  const items = await all(await openApi(options), item, 'GET', path, limit)
  show(options, items, {
    head: ['serial', 'profile', 'names', 'state', 'until', 'first used', 'revoked', 'reason'],
    rows: items.map((row) => [
      row.serial,
      row.profile,
      row.subject,
      row.state,
      instant(row.not_after),
      instant(row.first_used_at),
      instant(row.revoked_at),
      row.reason,
    ]),
    empty: 'nothing was issued yet; next: sallyport device add ID',
  })
}

/** `sallyport process`: what a device exposes, and which executable must answer there. */
import type { Command } from 'commander'
import type { Device, Expectation, Observed, Process } from '#api'
import type { Api } from '../client.ts'
import { CliError, usage } from '../exit.ts'
import { confirm, readInteger, readProcess } from '../input.ts'
import { facts, note, say, show, tell, type Table } from '../print.ts'
import { collect, globalOptions } from './options.ts'

interface SetFlags {
  readonly kind: string
  readonly locality?: string
  readonly port?: string
  readonly sha256?: string[]
  readonly exe?: string[]
  readonly uid?: string[]
  readonly unit?: string[]
  readonly script?: string[]
  readonly image?: string[]
  readonly observed?: boolean
  readonly yes?: boolean
}

export function registerProcess(program: Command): void {
  const command = program
    .command('process')
    .description('what a device exposes, and what must answer there')
  command
    .command('set <device/process>')
    .description('register a process, or change what must answer')
    .option(
      '--kind <kind>',
      'tcp, udp, modbus, http, ssh, or spawn for a program that the agent starts',
      'tcp',
    )
    .option('--locality <where>', 'device, or lan for a target that the agent only reaches')
    .option('--port <port>', 'its port, for people to read; the agent dials what its own file says')
    .option('--sha256 <hex>', 'an approved executable; may be repeated', collect)
    .option('--exe <path>', 'an approved path of the executable; may be repeated', collect)
    .option('--uid <number>', 'an approved user; may be repeated', collect)
    .option('--unit <name>', 'an approved systemd unit; may be repeated', collect)
    .option('--script <hex>', "the SHA-256 of an interpreter's script; may be repeated", collect)
    .option('--image <sha256:hex>', 'the id of a container image; may be repeated', collect)
    .option('--observed', 'approve what the agent last saw listening, after showing it')
    .option('--yes', 'do not ask')
    .action(setProcess)
  command
    .command('list')
    .description('the processes of every device')
    .action(async (_flags: unknown, self: Command) => {
      const options = globalOptions(self)
      const { all, openApi, Device: item } = await import('../client.ts')
      const items = await all(await openApi(options), item, 'GET', '/devices')
      const processes = items.flatMap((device) => device.processes)
      show(options, processes, processTable(processes))
    })
}

export function processTable(processes: readonly Process[]): Table {
  return {
    head: ['process', 'kind', 'port', 'approved', 'listening now', 'matches'],
    rows: processes.map((row) => [
      `${row.device}/${row.id}`,
      row.kind,
      row.port,
      row.expect.exe?.join(' ') ??
        row.expect.sha256?.map((digest) => digest.slice(0, 12)).join(' '),
      row.listener?.exe,
      row.listener === null ? null : matches(row.expect, row.listener),
    ]),
    empty: 'no processes yet; next: sallyport process set DEVICE/PROCESS --kind modbus --observed',
  }
}

/** What a person is shown beside the facts; who may connect is decided by policy alone. */
function matches(expect: Expectation, seen: Observed): boolean {
  const named = Object.keys(expect).length > 0
  const one = (approved: readonly unknown[] | undefined, value: unknown): boolean =>
    approved === undefined || approved.includes(value)
  return (
    named &&
    one(expect.exe, seen.exe) &&
    one(expect.sha256, seen.sha256) &&
    one(expect.uid, seen.uid) &&
    one(expect.unit, seen.unit) &&
    one(expect.script_sha256, seen.script_sha256) &&
    one(expect.image, seen.image)
  )
}

async function setProcess(place: string, flags: SetFlags, command: Command): Promise<void> {
  const options = globalOptions(command)
  const { device, process: name } = readProcess(place)
  const stated = statedExpectation(flags)
  if (flags.observed === true && Object.keys(stated).length > 0)
    throw usage(
      '--observed takes what the agent saw; it does not go with stated values',
      'choose one of the two',
    )
  const { openApi, Process: schema } = await import('../client.ts')
  const api = await openApi(options)
  const expect = flags.observed === true ? await takeOver(api, device, name, flags) : stated
  const path = `/devices/${device}/processes/${name}`
  const row = await api.call(schema, 'PUT', path, registration(flags, expect))
  tell(options, row, [
    `${row.device}/${row.id} is registered`,
    ...facts([
      ['kind', row.kind],
      ['executable', row.expect.exe?.join(' ')],
      ['SHA-256', row.expect.sha256?.join(' ')],
      ['user', row.expect.uid?.join(' ')],
      ['unit', row.expect.unit?.join(' ')],
      ['script', row.expect.script_sha256?.join(' ')],
      ['image', row.expect.image?.join(' ')],
    ]),
  ])
  if (!options.json && isAnybodys(row))
    note('any user of the device can have a program of theirs show as this; add --uid or --unit')
}

/** Whether a path, a hash or a script is all that is named: docs/process-scope.md "What each fact is worth". */
function isAnybodys({ kind, expect: { uid, unit, image, ...others } }: Process): boolean {
  const named = Object.values(others).some((values) => values !== undefined)
  return kind !== 'spawn' && named && [uid, unit, image].every((values) => values === undefined)
}

function registration(flags: SetFlags, expect: Expectation): object {
  return {
    kind: flags.kind,
    ...(flags.locality === undefined ? {} : { locality: flags.locality }),
    ...(flags.port === undefined ? {} : { port: readInteger(flags.port, 'port', 1, 65_535) }),
    expect,
  }
}

function statedExpectation(flags: SetFlags): Expectation {
  return {
    ...(flags.exe === undefined ? {} : { exe: flags.exe }),
    ...(flags.sha256 === undefined
      ? {}
      : { sha256: flags.sha256.map((digest) => digest.toLowerCase()) }),
    ...(flags.uid === undefined
      ? {}
      : { uid: flags.uid.map((uid) => readInteger(uid, 'user id', 0, 4_294_967_295)) }),
    ...(flags.unit === undefined ? {} : { unit: flags.unit }),
    ...(flags.script === undefined
      ? {}
      : { script_sha256: flags.script.map((digest) => digest.toLowerCase()) }),
    ...(flags.image === undefined ? {} : { image: flags.image }),
  }
}

/** Shows what listens now and asks; executable, digest, user, script and image become what is approved. */
async function takeOver(
  api: Api,
  device: string,
  name: string,
  flags: SetFlags,
): Promise<Expectation> {
  const { Device: schema } = await import('../client.ts')
  const row = await api.call(schema, 'GET', `/devices/${device}`)
  const known = row.processes.find(({ id }) => id === name)
  const listener =
    (known ?? (row.connected ? await register(api, device, name, flags) : null))?.listener ?? null
  if (listener?.sha256 === undefined || listener.sha256 === null) throw unseen(row, name, listener)
  const lines = facts([
    ['executable', listener.exe],
    ['SHA-256', listener.sha256],
    ['user', listener.uid],
    ['unit', listener.unit],
    ['script', listener.script_sha256],
    ['image', listener.image],
    ['process id', listener.pid],
  ])
  note(`${device}/${name}: the agent sees this program listening`)
  for (const line of lines) note(`  ${line}`)
  if (!(await confirm('approve exactly this program?', flags.yes))) {
    say('nothing was changed')
    throw new CliError('not approved', { code: 'not.confirmed', exit: 'interrupted' })
  }
  return {
    sha256: [listener.sha256],
    ...(listener.exe === null ? {} : { exe: [listener.exe] }),
    ...(listener.uid === null ? {} : { uid: [listener.uid] }),
    ...(listener.script_sha256 === null ? {} : { script_sha256: [listener.script_sha256] }),
    ...(listener.image === null ? {} : { image: [listener.image] }),
  }
}

/** The gateway tells what listens for a process only once it is registered; with nothing approved it lets nobody in. */
async function register(api: Api, device: string, name: string, flags: SetFlags): Promise<Process> {
  const { Process: schema } = await import('../client.ts')
  return api.call(schema, 'PUT', `/devices/${device}/processes/${name}`, registration(flags, {}))
}

function unseen(device: Device, name: string, listener: Observed | null): CliError {
  const why = !device.connected
    ? 'its agent is not connected'
    : listener === null
      ? `its agent reports nothing listening for ${name}`
      : 'its agent could not read the executable of the listening program'
  const next = !device.connected
    ? 'start the agent, then repeat this'
    : `check the target ${name} in the agent's file and that the program runs; or state --sha256 yourself`
  return new CliError(`nothing to take over for ${device.id}/${name}`, {
    code: 'process.unobserved',
    exit: 'failed',
    why,
    next,
  })
}

/**
 * This machine becomes a device and stays one: the program, a user for it, a certificate, a service that keeps the
 * tunnel. Every step leaves the old or the new state whatever ends it, and done again changes nothing, so the same
 * command goes on after any failure. docs/agent.md "As a service".
 */
import { chownSync, closeSync, existsSync, openSync, readdirSync, statSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { writeConfig } from '../config.ts'
import type { AgentConfig, Setup } from '../config.ts'
import { enrolAgent } from '../enrol.ts'
import { AgentError, messageOf } from '../errors.ts'
import { makeDirectory } from '../files.ts'
import type { Log } from '../log.ts'
import { openIdentity } from '../pkcs11.ts'
import type { Target } from '../target.ts'
import { pinApprovers } from '../two-keys.ts'
import { pinUpdateKeys } from '../update/pin.ts'
import { COMMAND, DATA, Place, USERS } from './place.ts'
import type { Program } from './place.ts'
import { connected, startService } from './service.ts'
import { as, assertFit, run, unfit, userOf } from './system.ts'
import type { User } from './system.ts'
import { capabilitiesOf, printUnit, spawnsOf, UNIT } from './unit.ts'
import type { Level } from './unit.ts'
import { tokenMissing, wantedOf } from './wanted.ts'
import type { Wanted } from './wanted.ts'

/** The user that the service runs as. */
const USER = 'sallyport'
/** nobody, as every Linux has it. */
const NOBODY: User = { uid: 65_534, gid: 65_534 }

export interface InstallOptions {
  /** What is absent stays as this machine has it. */
  readonly setup: Setup
  /** Undefined: the device has a certificate already. */
  readonly token: string | undefined
  /** Absolute, without `root`; undefined: that of the service that is here, else `DATA`. */
  readonly dataDir: string | undefined
  /** Undefined: that of the service that is here, else 2. */
  readonly level: Level | undefined
  readonly program: Program
  /** `/` by any name, or the folder of an image: there nothing is started, and no user is made. */
  readonly root: string
  /** Text of a file with approvers, and its name. */
  readonly approvers?: { readonly text: string; readonly path: string } | undefined
  /** Keys to pin, as words; none: what is pinned stays. */
  readonly updateKeys?: readonly string[] | undefined
  readonly signal: AbortSignal
  readonly log: Log
  /** Told of each thing that was done. */
  readonly did: (what: string) => void
}

export interface Installed {
  readonly device: string
  readonly serial: string
  readonly notAfter: string
  /** The gateway that it is connected to; null in an image. */
  readonly gateway: string | null
  readonly capabilities: readonly string[]
}

/**
 * Installs, enrols, starts, and waits until the tunnel is up. Rejects with AgentError `install.unfit`,
 * `config.other_device`, `config.invalid` before anything was changed; `install.failed`, `install.unconnected`,
 * `token.missing`, and those of `enrolAgent`, `pinApprovers` and `pinUpdateKeys`.
 */
export async function installAgent(options: InstallOptions): Promise<Installed> {
  const { program, did } = options
  const place = new Place(options.root)
  const { live } = place
  if (live) assertFit()
  const standing = place.service()
  const home = options.dataDir ?? standing?.dataDir ?? DATA
  const unitFor = (targets: Iterable<Target>, own: readonly string[]) => ({
    exec: place.exec(program),
    dataDir: home,
    user: USER,
    level: options.level ?? standing?.level ?? 2,
    spawns: spawnsOf(targets, own),
  })
  // Whether the paths can stand in a unit is known before anything is changed, and so is all that can be seen.
  if (!isAbsolute(home)) throw unfit('--data must be absolute.', 'Name it from / on.')
  printUnit(unitFor([], []))
  const dataDir = place.at(home)
  const wanted = await look(options, live, dataDir)
  // An earlier run may have been ended between a change and the restart that puts it to use.
  const unfinished = place.begin()
  const { placed, user } = await prepare(options, place, home)
  const { config, pair, fresh } = await as(user, () => becomeDevice(options, wanted.config))
  did(`enrolled as ${config.device}${fresh ? '' : ' already'}`)
  const own = user === undefined ? [USER] : [USER, String(user.uid)]
  const service = unitFor(config.targets.values(), own)
  const written = place.unit(printUnit(service))
  did(`the service ${UNIT} ${written ? 'is written' : 'was there already'}`)
  let gateway: string | null = null
  if (live) {
    await startService([unfinished, placed, fresh, wanted.corrected, written].includes(true), did)
    gateway = await connected(dataDir, options.signal)
  } else place.enable()
  place.finish()
  return {
    device: config.device,
    serial: pair.leaf.serialNumber.toLowerCase(),
    notAfter: pair.leaf.validToDate.toISOString(),
    gateway,
    capabilities: capabilitiesOf(service),
  }
}

/** Looks at all that can be seen without a change, and gives what the device's file is to say. */
async function look(options: InstallOptions, live: boolean, dataDir: string): Promise<Wanted> {
  const user = live ? await userOf(USER) : undefined
  if (live) {
    // Before there is the user, whoever has no privilege stands for it.
    await assertReadable(options.program.node, user ?? NOBODY)
    assertOurs(dataDir, user)
  }
  return await as(user, async () => wantedOf(options, dataDir))
}

/** The program, the user, and the data directory that belongs to it. */
async function prepare(
  { program, did }: InstallOptions,
  place: Place,
  home: string,
): Promise<{ readonly placed: boolean; readonly user: User | undefined }> {
  const { live } = place
  const placed = place.program(program)
  did(placed ? `the program is ${COMMAND}` : 'the program was there already')
  place.users(USER, home, live)
  const user = live ? await ensureUser() : undefined
  // The data is its user's alone; the way to it is not.
  place.above(home)
  ownData(place.at(home), user)
  did(`its data is in ${home}, and belongs to the user ${USER}`)
  return { placed, user }
}

/** Has systemd make the user of the service; it does nothing where there is one. sysusers.d(5). */
async function ensureUser(): Promise<User> {
  const next = `Make a user and a group \`${USER}\` without a login yourself, then run this again.`
  const before = await userOf(USER)
  if (before !== undefined) return before
  await run('systemd-sysusers', [USERS], next)
  const made = await userOf(USER)
  if (made === undefined) throw new AgentError('install.failed', `There is no user ${USER}.`, next)
  return made
}

/** Throws AgentError `install.unfit` where the service's user could not run it. */
async function assertReadable(path: string | undefined, user: User): Promise<void> {
  if (path === undefined) return
  try {
    // Not access(2), which asks for the real user, and that is still root.
    await as(user, async () => closeSync(openSync(path, 'r')))
  } catch (error) {
    throw unfit(
      `The user ${USER} cannot run ${path}: ${messageOf(error)}.`,
      'Put Node where every user can run it, such as /usr/local, or take the agent as one executable.',
    )
  }
}

/** Makes the data directory, and gives it to `user` where nobody has used it yet. Throws AgentError `install.unfit`. */
function ownData(dataDir: string, user: User | undefined): void {
  makeDirectory(dataDir)
  if (user === undefined) return
  assertOurs(dataDir, user)
  chownSync(dataDir, user.uid, user.gid)
}

/** Throws AgentError `install.unfit` where `dataDir` is somebody else's and not empty. */
function assertOurs(dataDir: string, user: User | undefined): void {
  if (!existsSync(dataDir)) return
  const { uid } = statSync(dataDir)
  if (uid !== user?.uid && readdirSync(dataDir).length > 0)
    throw unfit(
      `${dataDir} belongs to another user (${uid}) and is not empty.`,
      `If it is this device's: stop its agent, chown -R ${USER}:${USER} ${dataDir}, and run this again.`,
    )
}

type Enrolled = Awaited<ReturnType<typeof enrolAgent>>

/** Has a certificate for the device of `config`, by what is here already or by the token. */
async function becomeDevice(
  { approvers, updateKeys = [], token, log, signal }: InstallOptions,
  config: AgentConfig,
): Promise<{ config: AgentConfig; pair: Enrolled; fresh: boolean }> {
  const [before] = openIdentity(config).pairs()
  if (token === undefined) {
    if (before === undefined) throw tokenMissing()
    if (approvers !== undefined) pinApprovers(config, approvers.text, approvers.path)
    if (updateKeys.length > 0) pinUpdateKeys(config.dataDir, updateKeys)
    writeConfig(config)
    return { config, pair: before, fresh: false }
  }
  const pair = await enrolAgent(config, { token, approvers, updateKeys, log, signal })
  return { config, pair, fresh: pair.leaf.serialNumber !== before?.leaf.serialNumber }
}

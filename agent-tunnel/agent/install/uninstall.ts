/**
 * This machine is no device any more: the service, then with `purge` its key, then the program. What tells where things
 * are goes after the things, so that after a cut anywhere the same command goes on. docs/agent.md "As a service".
 */
import { existsSync, lstatSync, readdirSync, realpathSync, rmdirSync, rmSync } from 'node:fs'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { syncDirectory } from '#boot'
import { AgentError } from '../errors.ts'
import { DATA, Place } from './place.ts'
import { assertFit, run, unfit } from './system.ts'
import { UNIT } from './unit.ts'

export interface UninstallOptions {
  readonly root: string
  /** Undefined: what the service's unit says, else `DATA`. */
  readonly dataDir: string | undefined
  /** Forgets the device's key and certificate too. */
  readonly purge: boolean
  readonly did: (what: string) => void
}

export interface Uninstalled {
  readonly dataDir: string
  /** What there is of the data now: it was removed, it stays, or there was none. */
  readonly data: 'purged' | 'kept' | 'none'
}

/**
 * Takes the service, the program and with `purge` the data away; the user stays, because files may still be its.
 * Done again it changes nothing. Rejects with AgentError `install.unfit` before anything was changed, `install.failed`.
 */
export async function uninstallAgent(options: UninstallOptions): Promise<Uninstalled> {
  const { purge, did } = options
  const place = new Place(options.root)
  const { live } = place
  if (live) assertFit()
  const dataDir = dataOf(options, place)
  const data = place.at(dataDir)
  const there = existsSync(data)
  if (purge && there) assertData(data, place)
  const next = `See \`systemctl status ${UNIT}\`.`
  if (live && place.installed() !== undefined) {
    await run('systemctl', ['disable', '--now', '--quiet', UNIT], next)
    did('the service is stopped')
  }
  if (purge && there) {
    forget(data)
    did(`${dataDir} is gone`)
  }
  place.remove()
  if (live) await run('systemctl', ['daemon-reload'], next)
  did('service and program are gone')
  if (!there) did(`there is nothing in ${dataDir}`)
  else if (!purge) did(`${dataDir} stays, with the device's key`)
  return { dataDir, data: !there ? 'none' : purge ? 'purged' : 'kept' }
}

/** Where the data is, without the root. Throws AgentError `install.unfit`. */
function dataOf({ dataDir, purge }: UninstallOptions, place: Place): string {
  const named = dataDir === undefined ? undefined : resolve(dataDir)
  if (dataDir !== undefined && !isAbsolute(dataDir))
    throw unfit('--data must be absolute.', 'Name it from / on.')
  const service = place.service()
  if (purge && named === undefined && service === undefined && place.installed() !== undefined)
    throw unfit('The unit does not say where the data is.', 'Name the directory with --data.')
  if (service === undefined) return named ?? DATA
  if (named !== undefined && named !== resolve(service.dataDir))
    throw unfit(
      `The service keeps its data in ${service.dataDir}, not in ${named}.`,
      'Leave --data out: the unit says where it is.',
    )
  return service.dataDir
}

/** The file that says that a directory is a device's; the last that is removed. */
const LAST = 'agent.json'

/** Throws AgentError `install.unfit` for a directory that no agent has used. */
function assertData(path: string, place: Place): void {
  const real = realpathSync(path)
  if (!place.holds(real))
    throw unfit(`${path} leads out of the image, to ${real}.`, 'Remove that one yourself.')
  const found = readdirSync(real)
  if (found.length > 0 && !found.includes(LAST) && !found.includes('identity'))
    throw unfit(
      `${path} is not a device's data: it has neither ${LAST} nor identity/.`,
      "Name the device's own directory, or leave --data out.",
    )
}

/** Removes a data directory, and where it is reached by a link that too. Throws AgentError `install.failed`. */
function forget(path: string): void {
  try {
    const real = realpathSync(path)
    const rest = readdirSync(real).filter((name) => name !== LAST)
    for (const name of [...rest, LAST]) rmSync(join(real, name), { recursive: true, force: true })
    syncDirectory(real)
    rmdirSync(real)
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) rmSync(path)
    syncDirectory(dirname(path))
  } catch (cause) {
    const says = cause instanceof Error ? cause.message : String(cause)
    throw new AgentError(
      'install.failed',
      `${path} could not be removed: ${says}.`,
      'The service is stopped. Look what is in the way, then run this again.',
      { cause },
    )
  }
}

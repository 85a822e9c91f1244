/**
 * What a lockfile must be before `npm ci` may run: every package has an integrity, none brings an
 * install script, none names the host it came from. `node test/house/lockfile.mjs [FILE]`.
 */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * Each line names a package and what is wrong with it.
 * @param {string} text the lockfile
 * @param {string} manifestText the package.json beside it
 * @returns {string[]}
 */
export function complaints(text, manifestText) {
  const { lockfileVersion, packages } = JSON.parse(text)
  const { dependencies, optionalDependencies, devDependencies } = JSON.parse(manifestText)
  if (lockfileVersion !== 3) return [`lockfileVersion is ${lockfileVersion}, not 3`]
  const entries = Object.entries(packages).filter(([path]) => path !== '')
  if (entries.length === 0) return ['the lockfile holds no package']
  const wanted = Object.entries({ ...dependencies, ...optionalDependencies, ...devDependencies })
  return [
    ...entries.flatMap(([path, entry]) => ofPackage(entry).map((what) => `${path}: ${what}`)),
    ...wanted.flatMap(([name, version]) =>
      ofPin(name, String(version), packages[`node_modules/${name}`]?.version),
    ),
  ]
}

/** @param {{hasInstallScript?: boolean, integrity?: string, resolved?: string, link?: boolean}} entry */
function ofPackage(entry) {
  const found = []
  if (entry.hasInstallScript === true) found.push('brings an install script')
  if (!/^sha512-[\w+/]{86}==$/.test(entry.integrity ?? '')) found.push('has no SHA-512 integrity')
  if (entry.resolved !== undefined) found.push('names the host it came from')
  if (entry.link === true) found.push('is a link')
  return found
}

/**
 * @param {string} name
 * @param {string} wanted
 * @param {string | undefined} locked
 */
function ofPin(name, wanted, locked) {
  if (!/^\d+\.\d+\.\d+(?:-[\w.]+)?$/.test(wanted))
    return [`${name}: ${wanted} is not an exact version`]
  return locked === wanted
    ? []
    : [`${name}: package.json wants ${wanted}, the lockfile has ${locked}`]
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = resolve(process.argv[2] ?? 'package-lock.json')
  const found = complaints(
    readFileSync(file, 'utf8'),
    readFileSync(resolve(file, '../package.json'), 'utf8'),
  )
  for (const line of found) console.error(line)
  if (found.length === 0) console.log('lockfile: integrity everywhere, no install script, no host')
  process.exitCode = found.length === 0 ? 0 : 1
}

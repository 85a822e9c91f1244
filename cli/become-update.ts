/**
 * The executable that holds Node as what runs an update: given the SHA-256 of an agent in one file, and where that lies, it
 * becomes the agent in exactly these octets; of the installed agent nothing but Node is used. docs/updates.md "On the device".
 */
import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, resolve } from 'node:path'
import { isSea } from 'node:sea'
import { compileFunction } from 'node:vm'
import { UPDATE_WORD } from '#boot'
import { exits } from './exit.ts'

/** What Node gives a CommonJS file. */
const GIVEN = ['exports', 'require', 'module', '__filename', '__dirname']

/**
 * Whether the line says so (`become-update SHA256 FILE WORD ...`): then that agent has run, with the words behind, as if
 * Node had been started on the file; one that is not these octets any more is not run, and the exit code has the service
 * manager start again, which looks again at what is to run.
 */
export function becomesUpdate(): boolean {
  const [, , word, sha256 = '', named = ''] = process.argv
  if (!isSea() || word !== UPDATE_WORD) return false
  const file = resolve(named)
  const octets = readFileSync(file)
  if (hash('sha256', octets, 'hex') !== sha256) {
    process.stderr.write(`${file} is not ${sha256}\n`)
    process.exitCode = exits.restart.code
    return true
  }
  process.argv.splice(1, 4, file)
  const made = { exports: {} }
  // The line for a shell is no line of a function.
  const source = octets.toString('utf8').replace(/^#!/, '//')
  const run = compileFunction(source, GIVEN, { filename: file }) as (...given: unknown[]) => void
  run(made.exports, createRequire(file), made, file, dirname(file))
  return true
}

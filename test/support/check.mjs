/**
 * `npm run check`: every gate over the tree, two at a time. One line per gate; whatever a failing
 * gate printed follows in full. A gate that saw no files, or fewer than there are, has failed.
 * `node test/support/check.mjs [ROOT]`; exits 1 if any gate failed.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { files, isSource } from '../house/tree.mjs'

// Programs with `types: []`, where node:* and timers do not compile. Each must exist.
const SMALL_PROGRAMS = ['agent-tunnel/mux', 'agent-tunnel/ot', 'ca/der']

// A gate that has not ended by then never will.
const LIMIT_MS = 180_000

const here = dirname(fileURLToPath(import.meta.url))
const root = resolve(process.argv[2] ?? join(here, '../..'))
const sources = files(root).filter(isSource)
/** @type {Set<string>} */
const covered = new Set()

/**
 * A gate: what to run, and how its output tells how many of `least` files it saw.
 * @typedef {object} Gate
 * @property {string} name
 * @property {string[]} command
 * @property {(out: string) => number} seen
 * @property {number} least
 * @property {(out: string) => string} [note]
 * @property {(out: string) => string} [show]
 */

/** @type {Gate[]} */
const gates = [
  {
    name: 'knip',
    command: [
      'knip',
      '--no-progress',
      '--reporter',
      'symbols',
      '--reporter',
      join(here, 'knip-count.mjs'),
    ],
    seen: (out) => number(/^saw (\d+) files$/m, out),
    least: 1,
  },
  {
    name: 'oxlint',
    command: ['oxlint', '--type-aware'],
    seen: (out) => number(/ on (\d+) files?/, out),
    least: sources.length,
    note: (out) => {
      const warnings = number(/Found (\d+) warning/, out)
      return warnings > 0 ? `, ${warnings} warnings` : ''
    },
  },
  program('.'),
  ...smallPrograms().map(program),
  {
    name: 'oxfmt',
    command: ['oxfmt', '--check', '.'],
    seen: (out) => number(/ on (\d+) files?/, out),
    least: sources.length,
  },
]

/**
 * @param {string} folder
 * @returns {Gate}
 */
function program(folder) {
  return {
    name: `tsc ${folder}`,
    command: ['tsc', '-p', folder, '--listFiles', '--pretty', 'false'],
    seen: (out) => {
      const own = listed(out)
      for (const file of own) covered.add(file)
      return own.filter((file) => folder === '.' || file.startsWith(`${folder}/`)).length
    },
    least: 1,
    show: (out) =>
      out
        .split('\n')
        .filter((line) => !/^\/.*\.(?:[cm]?[jt]s|json)$/.test(line))
        .join('\n'),
  }
}

/** Folders that carry a tsconfig of their own, and those that must. */
function smallPrograms() {
  const found = files(root).filter(
    (file) => file.endsWith('/tsconfig.json') && !file.startsWith('console/'),
  )
  const rooms = SMALL_PROGRAMS.filter((folder) => existsSync(join(root, folder)))
  return [...new Set([...rooms, ...found.map(dirname)])].sort()
}

/** @param {string} out */
function listed(out) {
  const own = out.split('\n').filter((line) => line.startsWith(`${root}/`))
  return own
    .map((line) => line.slice(root.length + 1))
    .filter((file) => !file.startsWith('node_modules/'))
}

/**
 * @param {RegExp} pattern
 * @param {string} text
 */
function number(pattern, text) {
  return Number(pattern.exec(text)?.[1] ?? 0)
}

/** @param {Gate} gate */
async function run(gate) {
  const start = performance.now()
  const [command = '', ...args] = gate.command
  // NO_COLOR: the counts are read from the output.
  const path = [
    join(root, 'node_modules/.bin'),
    join(here, '../../node_modules/.bin'),
    process.env['PATH'],
  ]
  const env = { ...process.env, PATH: path.join(delimiter), NO_COLOR: '1', FORCE_COLOR: '0' }
  const child = spawn(command, args, {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LIMIT_MS,
  })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (chunk) => (out += chunk))
  child.stderr.setEncoding('utf8').on('data', (chunk) => (out += chunk))
  const code = await new Promise((done) => {
    child.on('error', (error) => done((out += `could not start ${command}: ${error.message}\n`)))
    child.on('close', (status, signal) => done(status ?? signal))
  })
  const seen = gate.seen(out)
  if (code === 'SIGTERM') out += `stopped: not done after ${LIMIT_MS / 1000} s\n`
  if (code === 0 && seen < gate.least)
    out += `saw ${seen} files where there are at least ${gate.least}\n`
  const failed = code !== 0 || seen < gate.least
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  const line = `${gate.name.padEnd(20)} ${seconds.padStart(5)} s  ${seen} files${gate.note?.(out) ?? ''}`
  console.log(`${failed ? 'FAIL' : 'ok  '}  ${line}`)
  return failed ? `\n--- ${gate.name}\n${(gate.show?.(out) ?? out).trimEnd()}\n` : ''
}

const began = performance.now()
const queue = [...gates]
/** @type {string[]} */
const failures = []
const worker = async () => {
  for (let gate = queue.shift(); gate !== undefined; gate = queue.shift())
    failures.push(await run(gate))
}
await Promise.all(Array.from({ length: Math.max(2, Math.min(4, availableParallelism())) }, worker))

const unseen = sources.filter((file) => /\.m?ts$/.test(file) && !covered.has(file))
if (unseen.length > 0) {
  console.log(`FAIL  tsc ${unseen.length} files belong to no program`)
  failures.push(`\n--- files that no tsc program compiles\n${unseen.join('\n')}\n`)
}
const failed = failures.filter((text) => text !== '')
for (const text of failed) console.log(text)
const seconds = ((performance.now() - began) / 1000).toFixed(1)
console.log(failed.length === 0 ? `check passed in ${seconds} s` : `check failed in ${seconds} s`)
process.exitCode = failed.length === 0 ? 0 : 1

/**
 * Runs a program of this project on the Node it is pinned to (package.json, optionalDependencies).
 * npm itself may run on an older system Node, and a failed optional install is silent, so the
 * version is checked here, before the first .ts file is loaded. Plain JavaScript that an old Node
 * can parse.
 */
import { spawn } from 'node:child_process'
import { existsSync, realpathSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const NODE_FLOOR = [26, 10, 0]
const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')

/**
 * Whether a dotted version is at or above the floor.
 * @param {string} version
 */
export function meetsFloor(version) {
  const parts = version.split('.').map(Number)
  for (const [at, least] of NODE_FLOOR.entries()) {
    const part = parts[at] ?? 0
    if (part !== least) return part > least
  }
  return true
}

/** The pinned runtime if it is installed, else this process's own when new enough, else nothing. */
export function findNode() {
  const name = `node-linux-${process.arch}`
  const pinned = join(root, 'node_modules', name, 'bin', 'node')
  if (process.platform === 'linux' && existsSync(pinned)) return realpathSync(pinned)
  return meetsFloor(process.versions.node) ? process.execPath : undefined
}

function refuse() {
  const wanted = NODE_FLOOR.join('.')
  console.error(
    `Sallyport needs Node ${wanted} or newer; this is ${process.versions.node}, and the pinned one ` +
      `is not in node_modules.\nNext step: run \`npm ci\` without --omit=optional, or start with a newer Node.`,
  )
  process.exit(1)
}

/**
 * Becomes the pinned Node running `args`; does not come back. Where this Node can replace itself
 * (execve) the process id stays, so whoever signals or kills it reaches the program; else a child
 * is started, signals go on to it, and its exit code or signal becomes ours.
 * @param {string[]} args
 */
export function run(args) {
  const node = findNode()
  const stuck = node === process.execPath && !meetsFloor(process.versions.node)
  if (node === undefined || stuck) return refuse()
  const path = [join(root, 'node_modules', '.bin'), dirname(node), process.env['PATH'] ?? '']
  const env = { ...process.env, PATH: path.join(':') }
  if (typeof process.execve === 'function') process.execve(node, [node, ...args], env)
  follow(spawn(node, args, { stdio: 'inherit', env }))
}

/** @param {import('node:child_process').ChildProcess} child */
function follow(child) {
  // What a terminal sends (Ctrl-C, hang-up) it sends to the child as well; twice would read as "at once".
  const terminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGHUP']))
    process.on(signal, () => {
      if (!terminal) child.kill(signal)
    })
  child.on('error', (error) => {
    console.error(`could not start ${child.spawnfile}: ${error.message}`)
    process.exit(1)
  })
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1)
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
    // A signal that Node itself ignores would leave us waiting.
    setTimeout(() => process.exit(128 + (constants.signals[signal] ?? 0)), 100)
  })
}

if (
  process.argv[1] !== undefined &&
  realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)
) {
  const [first, ...rest] = process.argv.slice(2)
  if (first === undefined) {
    console.error('usage: node cli/guard.mjs FILE.ts [ARG ...]')
    process.exit(2)
  }
  if (first === '--vitest') {
    const vitest = createRequire(join(root, 'package.json')).resolve('vitest/package.json')
    run([join(dirname(vitest), 'vitest.mjs'), 'run', ...rest])
  } else run([resolve(root, first), ...rest])
}

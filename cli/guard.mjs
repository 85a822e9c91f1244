/**
 * Runs a program of this project on the Node it is pinned to (package.json, optionalDependencies).
 * npm itself may run on an older system Node, and a failed optional install is silent, so the
 * version is checked here, before the first .ts file is loaded.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const NODE_FLOOR = [26, 10, 0]
const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')

/** Whether a dotted version is at or above the floor. */
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
  if (process.platform === 'linux' && existsSync(pinned)) return pinned
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

function run(args) {
  const node = findNode()
  if (node === undefined) refuse()
  const path = [join(root, 'node_modules', '.bin'), dirname(node), process.env['PATH'] ?? '']
  const child = spawn(node, args, {
    stdio: 'inherit',
    env: { ...process.env, PATH: path.join(':') },
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('error', (error) => {
    console.error(`could not start ${node}: ${error.message}`)
    process.exit(1)
  })
  child.on('exit', (code, signal) => {
    if (signal !== null) process.removeAllListeners(signal)
    if (signal !== null) process.kill(process.pid, signal)
    else process.exit(code ?? 1)
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
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

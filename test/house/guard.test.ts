/** The version guard, on the Node of the tests and on the system's own where that is older. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { NODE_FLOOR, findNode, meetsFloor } from '../../cli/guard.mjs'

const root = join(import.meta.dirname, '../..')
const guard = join(root, 'cli/guard.mjs')
let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sallyport-guard-'))
})
afterAll(() => rm(folder, { recursive: true }))

test.for<[string, boolean]>([
  ['26.10.0', true],
  ['26.10.1', true],
  ['26.11.0', true],
  ['27.0.0', true],
  ['26.9.9', false],
  ['20.20.2', false],
  ['26', false],
])('%s meets the floor: %s', ([version, meets]) => expect(meetsFloor(version)).toBe(meets))

test('the floor is the version that package.json pins', () => {
  const { optionalDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    optionalDependencies: Record<string, string>
  }
  for (const [name, version] of Object.entries(optionalDependencies).filter(([name]) =>
    name.startsWith('node-'),
  ))
    expect(version, name).toBe(NODE_FLOOR.join('.'))
})

test('the pinned runtime is found, and tests run on one that is new enough', () => {
  expect(findNode()).toBeDefined()
  expect(meetsFloor(process.versions.node)).toBe(true)
})

/** A Node that is too old to be replaced in place, if this machine has one outside the project. */
function oldNode(): string | undefined {
  const paths = (process.env['PATH'] ?? '')
    .split(':')
    .filter((path) => !path.includes('node_modules'))
  const found = paths.map((path) => join(path, 'node')).find((path) => existsSync(path))
  if (found === undefined) return undefined
  const probe = spawnSync(found, ['-p', 'typeof process.execve'], { encoding: 'utf8' })
  return probe.stdout.trim() === 'undefined' ? found : undefined
}

const old = oldNode()
const nodes = [process.execPath, ...(old === undefined ? [] : [old])]

describe.for(
  nodes.map((node, at) => ({ node, which: at === 0 ? 'the Node of the tests' : 'an older one' })),
)('started by $which', ({ node }) => {
  async function program(source: string): Promise<string> {
    const file = join(folder, `${Math.random().toString(36).slice(2)}.ts`)
    await writeFile(file, source)
    return file
  }

  test('a .ts program gets its arguments, its directory, and the pinned Node first in PATH', async () => {
    const file = await program(
      `const [, , ...args]: string[] = process.argv
       console.log(JSON.stringify({ args, cwd: process.cwd(), version: process.versions.node, path: process.env['PATH'] }))`,
    )
    const { stdout, status } = spawnSync(node, [guard, file, 'a', '--b', 'c d'], {
      cwd: folder,
      encoding: 'utf8',
    })
    const said = JSON.parse(stdout) as {
      args: string[]
      cwd: string
      version: string
      path: string
    }
    expect(status).toBe(0)
    expect(said).toMatchObject({ args: ['a', '--b', 'c d'], cwd: folder })
    expect(meetsFloor(said.version)).toBe(true)
    expect(said.path.startsWith(join(root, 'node_modules/.bin'))).toBe(true)
  })

  test('the exit code passes through', async () => {
    expect(spawnSync(node, [guard, await program('process.exit(7)')]).status).toBe(7)
    expect(spawnSync(node, [guard, await program('throw new Error()')]).status).toBe(1)
  })

  test('a signal passes through, once', async () => {
    const file = await program(
      `let count = 0
       process.on('SIGINT', () => {
         count++
         setTimeout(() => process.exit(40 + count), 100)
       })
       setInterval(() => {}, 1000)
       console.log('ready')`,
    )
    const child = spawn(node, [guard, file], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    child.kill('SIGINT')
    expect(await once(child, 'exit')).toEqual([41, null])
  })

  test('a program that dies of a signal is seen to have died of it', async () => {
    const file = await program(`process.kill(process.pid, 'SIGKILL')`)
    expect(spawnSync(node, [guard, file]).signal).toBe('SIGKILL')
  })

  test('without a program there is a usage line', () => {
    const { status, stderr } = spawnSync(node, [guard], { encoding: 'utf8' })
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: 'usage: node cli/guard.mjs FILE.ts [ARG ...]\n',
    })
  })

  test.skipIf(!existsSync(join(root, 'cli/main.ts')))(
    'the command works from any directory',
    () => {
      const { status, stdout } = spawnSync(node, [join(root, 'cli/bin.mjs'), '--version'], {
        cwd: '/',
        encoding: 'utf8',
      })
      expect({ status, stdout }).toEqual({ status: 0, stdout: '0.1.0\n' })
      expect(
        spawnSync(node, [join(root, 'cli/bin.mjs'), 'no-such-command'], { cwd: '/' }).status,
      ).not.toBe(0)
    },
  )
})

test('a Node that is too old, without the pinned one, is told what to do', async () => {
  const copy = join(folder, 'cli/guard.mjs')
  const source = readFileSync(guard, 'utf8').replace('NODE_FLOOR = [26,', 'NODE_FLOOR = [99,')
  await mkdir(join(folder, 'cli'))
  await writeFile(copy, source)
  const { status, stderr } = spawnSync(process.execPath, [copy, 'a.ts'], { encoding: 'utf8' })
  expect(status).toBe(1)
  expect(stderr).toMatch(/needs Node 99\.10\.0 or newer; this is .*\nNext step: run `npm ci`/)
})

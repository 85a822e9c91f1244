/** `sallyport ca` on a data directory: what `init` and `status` do, say, print as JSON, and end with; and at a terminal. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { run } from './run.ts'
import {
  at,
  ca,
  complaint,
  eachRow,
  from,
  here,
  init,
  json,
  openssl,
  PASSPHRASE,
  withRoot,
} from './ca-place.ts'

eachRow()

describe('init', () => {
  test('the root key leaves the node: the copy opens, the node has none, nobody is warned of it', async () => {
    const ran = await init()
    expect(ran.code, ran.err).toBe(0)
    for (const text of [
      'the root key was written out, read back, and taken off this node',
      at('root.pem'),
      'next: put it on two media',
      'exported 2',
      'sealed file issuing.key.pem',
    ])
      expect(ran.out).toContain(text)
    expect(ran.out).toMatch(/^root SHA-256 +[0-9a-f]{64}$/m)
    expect(ran.err).not.toContain('root key is on this node')
    expect(readdirSync(at('node', 'ca')).filter((name) => name.includes('key'))).toEqual([
      'issuing.key.pem',
    ])
    openssl('pkey', '-in', 'root.pem', '-noout', '-passin', 'file:pass')
    expect(existsSync(at('node', 'ca', 'root.key.pem'))).toBe(false)
  })

  test('again: nothing is made, nothing leaves', async () => {
    await from('made')
    const before = readFileSync(at('node', 'ca', 'state.json'), 'utf8')
    const ran = await ca('init', '--root-to', at('other.pem'))
    expect(ran.code, ran.err).toBe(0)
    expect(readFileSync(at('node', 'ca', 'state.json'), 'utf8')).toBe(before)
    expect(existsSync(at('other.pem'))).toBe(false)
  })

  test('of a node that made its CA by itself: the root leaves now', async () => {
    await from('kept')
    rmSync(at('root.pem'))
    expect((await init()).out).toContain('taken off this node')
    expect(existsSync(at('node', 'ca', 'root.key.pem'))).toBe(false)
  })

  test('--keep-root: it stays, and every look at it says so', async () => {
    const ran = await ca('init', '--keep-root')
    expect(ran.code).toBe(0)
    for (const { err } of [ran, await ca('status')])
      expect(err).toContain('run sallyport ca export-root --to FILE')
  })

  test('as JSON: one line with the state and the copy', async () => {
    const args = ['--root-to', at('root.pem'), '--root-passphrase-file', at('pass')]
    const { value, code, err } = await json('init', ...args)
    expect([code, err]).toEqual([0, ''])
    expect(value).toMatchObject({
      exported: { file: at('root.pem'), sha256: expect.stringMatching(/^[0-9a-f]{64}$/) },
      roots: [{ current: true, key: expect.stringContaining('exported') }],
      warnings: [expect.stringContaining('ca-passphrase')],
    })
  })

  const refused = [
    ['no passphrase', [], 'key.passphrase'],
    ['a short passphrase', ['--root-passphrase-file', 'short'], 'key.passphrase'],
    ['a passphrase of two lines', ['--root-passphrase-file', 'two'], 'key.passphrase'],
    ['no passphrase file', ['--root-passphrase-file', 'none'], 'usage'],
    [
      'no folder for the key',
      ['--root-passphrase-file', 'pass', '--root-to', 'usb/r.pem'],
      'key.unwritable',
    ],
    [
      'a place inside',
      ['--root-passphrase-file', 'pass', '--root-to', 'node/ca/r.pem'],
      'ca.exists',
    ],
    [
      'a file of somebody else',
      ['--root-passphrase-file', 'pass', '--root-to', 'two'],
      'ca.exists',
    ],
    [
      'a folder that is none',
      ['--root-passphrase-file', 'pass', '--root-to', 'two/r.pem'],
      'key.unwritable',
    ],
  ] as const
  test.for(refused)('%s: refused before anything is made', async ([, args, code]) => {
    writeFileSync(at('short'), 'eleven-char')
    writeFileSync(at('two'), 'correct horse\nbattery staple')
    if (code === 'ca.exists') mkdirSync(at('node', 'ca'), { recursive: true })
    const given = args.map((each) => (each.startsWith('--') ? each : at(each)))
    const ran = await ca('init', ...given)
    expect(complaint(ran)).toMatchObject({ code, next: expect.stringMatching(/\w/) })
    expect(ran.code).toBe(code === 'ca.exists' ? 1 : 2)
    expect(existsSync(at('node', 'ca', 'issuing.crt'))).toBe(false)
    expect(existsSync(at('node', 'keys'))).toBe(false)
  })

  test('a passphrase for a root that stays: exit 2', async () => {
    expect((await init('--keep-root')).code).toBe(2)
    expect((await init('--subordinate')).code).toBe(2)
  })

  test('without a passphrase of its own, what seals the node seals the copy, if that is elsewhere', async () => {
    writeFileSync(at('node.yaml'), `data: ${at('node')}\nca:\n  passphrase_file: ${at('pass')}\n`)
    const args = ['ca', 'init', '--config', at('node.yaml'), '--root-to', at('root.pem')]
    const ran = await run(here.folder, ...args)
    expect([ran.code, ran.err]).toEqual([0, ''])
    openssl('pkey', '-in', 'root.pem', '-noout', '-passin', 'file:pass')
  })
})

describe('status', () => {
  test('where there is nothing: the directory that was looked at, and nothing is made', async () => {
    expect(complaint(await ca('status'))).toMatchObject({
      exit: 1,
      code: 'ca.absent',
      what: expect.stringContaining(at('node', 'ca')),
      next: expect.stringContaining('--data'),
    })
    for (const verb of ['rotate', 'export-root'])
      expect(
        (
          await ca(
            verb,
            ...(verb === 'rotate' ? [] : ['--to', at('x'), '--passphrase-file', at('pass')]),
          )
        ).code,
      ).toBe(1)
    expect(existsSync(at('node'))).toBe(false)
  })

  test('as JSON: every fact, and the same error on stderr', async () => {
    const absent = await json('status')
    expect([absent.code, absent.out]).toEqual([1, ''])
    expect(absent.value).toMatchObject({ error: { code: 'ca.absent' } })
    await from('made')
    const { value, err } = await json('status')
    expect(err).toBe('')
    expect(value).toMatchObject({
      roots: [{ sha256: expect.stringMatching(/^[0-9a-f]{64}$/) }],
      issuers: [{ state: 'active', active_from: null }],
      requested: false,
      certificates: null,
    })
  })

  test('a state that was damaged: the file and the place', async () => {
    await from('made')
    writeFileSync(at('node', 'ca', 'state.json'), '{"v":1}')
    expect(complaint(await ca('status'))).toMatchObject({ exit: 1, code: 'ca.state' })
  })

  test('another tenant in the configuration: which one is meant', async () => {
    await from('made')
    writeFileSync(at('node.yaml'), `data: ${at('node')}\ntenant: other.sallyport.internal\n`)
    const ran = await run(here.folder, 'ca', 'rotate', '--config', at('node.yaml'), ...withRoot())
    expect(complaint(ran)).toMatchObject({
      exit: 1,
      code: 'ca.state',
      next: expect.stringContaining('tenant: main.sallyport.internal'),
    })
  })
})

test('the help says which commands work where, and nothing but the command is printed', async () => {
  const help = await run(here.folder, 'ca', '--help')
  expect(help.code).toBe(0)
  expect(help.out).toContain('work on the data directory')
  expect(help.out).toContain('sallyport login')
  const program = new URL('../../cli/bin.mjs', import.meta.url).pathname
  const bare = spawnSync(process.execPath, [program, 'ca', 'status', '--data', at('node')], {
    encoding: 'utf8',
  })
  expect(bare.status).toBe(1)
  expect(bare.stderr).toMatch(/^sallyport: there is no CA/)
})

describe('at a terminal', () => {
  /** The command on a terminal of its own (`script` of bsdutils); each prompt gets the next answer. */
  async function typed(args: readonly string[], ...answers: string[]): Promise<string> {
    const bin = new URL('../../cli/bin.mjs', import.meta.url).pathname
    const line = [process.execPath, bin, ...args].map((word) => `'${word}'`).join(' ')
    const child = spawn('script', ['-qec', line, '/dev/null'], {
      env: { ...process.env, SALLYPORT_HOME: here.folder },
    })
    let said = ''
    let asked = 0
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text
      for (; asked < (said.match(/passphrase, [a-z0-9 ]+: /g) ?? []).length; asked++)
        child.stdin.write(`${answers[asked] ?? 'nobody knows'}\r`)
    })
    await once(child, 'close')
    return said
  }
  const init = (to = at('root.pem')) => ['ca', 'init', '--data', at('node'), '--root-to', to]

  test('the passphrase is asked for twice, in words that say which time it is', async () => {
    const said = await typed(init(), PASSPHRASE, PASSPHRASE)
    expect(said).toContain('root passphrase, at least 12 characters: ')
    expect(said).toContain('root passphrase, again: ')
    expect(said).not.toContain(PASSPHRASE)
    openssl('pkey', '-in', 'root.pem', '-noout', '-passin', 'file:pass')
  })

  const vain = [
    { name: 'too short: refused before the second time', to: undefined, answer: 'short', times: 1 },
    { name: 'a folder that is not there: nobody is asked', to: '/none/root.pem', times: 0 },
  ]
  test.for(vain)('$name', async ({ to, answer = PASSPHRASE, times }) => {
    const said = await typed(init(to), answer, answer)
    expect(said.match(/passphrase, /g) ?? []).toHaveLength(times)
    expect(said).toContain('nothing was')
    expect(existsSync(at('node', 'ca'))).toBe(false)
  })

  test('a root key that is away already: nobody is asked', async () => {
    await from('made')
    const said = await typed(['ca', 'export-root', '--data', at('node'), '--to', at('x.pem')])
    expect(said).toContain('ca.exported')
    expect(said).not.toContain('passphrase, ')
  })
})

/** `sallyport ca` on a data directory: what each command does, says, prints as JSON, and ends with. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { run, type Ran } from './run.ts'

const PASSPHRASE = 'correct horse battery'
const folders: string[] = []
let folder: string
const at = (...names: string[]) => join(folder, ...names)

// Sealing is slow on purpose, and this machine may be busy.

/** CAs made once and copied: `kept` with its root, `made` without, `asked` with a request alone. */
let stock: string
beforeAll(async () => {
  stock = mkdtempSync(join(tmpdir(), 'sallyport-cli-stock-'))
  folders.push(stock)
  folder = stock
  writeFileSync(at('pass'), `${PASSPHRASE}\n`, { mode: 0o600 })
  const on = async (name: string, ...args: string[]) => {
    const ran = await run(folder, 'ca', 'init', '--data', at(name), ...args)
    expect(ran.code, ran.err).toBe(0)
    return ran.out
  }
  await on('kept', '--keep-root')
  cpSync(at('kept'), at('made'), { recursive: true })
  await on('made', '--root-to', at('root.pem'), '--root-passphrase-file', at('pass'))
  writeFileSync(at('request.pem'), await on('asked', '--subordinate'))
})
function from(name: 'kept' | 'made' | 'asked'): void {
  cpSync(join(stock, name), at('node'), { recursive: true })
  for (const file of ['root.pem', 'request.pem']) cpSync(join(stock, file), at(file))
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-cli-ca-'))
  folders.push(folder)
  writeFileSync(at('pass'), `${PASSPHRASE}\n`, { mode: 0o600 })
})
afterAll(() => {
  for (const each of folders) rmSync(each, { recursive: true })
})

const ca = async (verb: string, ...args: string[]): Promise<Ran> =>
  await run(folder, 'ca', verb, '--data', at('node'), ...args)
const init = async (...args: string[]): Promise<Ran> =>
  await ca('init', '--root-to', at('root.pem'), '--root-passphrase-file', at('pass'), ...args)
const withRoot = () => ['--root-key', at('root.pem'), '--root-passphrase-file', at('pass')]
const json = async (verb: string, ...args: string[]) => {
  const ran = await run(folder, '--json', 'ca', verb, '--data', at('node'), ...args)
  return { ...ran, value: JSON.parse(ran.out || ran.err) as Record<string, never> }
}
/** What a person is told went wrong: code and next step, and the exit code. */
function complaint({ code, err }: Ran) {
  const line = (name: string) => new RegExp(`^  ${name}  +(.*)$`, 'm').exec(err)?.[1]
  return { exit: code, code: line('code'), next: line('next'), what: err.split('\n', 1)[0] }
}
const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { cwd: folder, encoding: 'utf8', stdio: 'pipe' })

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
    from('made')
    const before = readFileSync(at('node', 'ca', 'state.json'), 'utf8')
    const ran = await ca('init', '--root-to', at('other.pem'))
    expect(ran.code, ran.err).toBe(0)
    expect(readFileSync(at('node', 'ca', 'state.json'), 'utf8')).toBe(before)
    expect(existsSync(at('other.pem'))).toBe(false)
  })

  test('of a node that made its CA by itself: the root leaves now', async () => {
    from('kept')
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
    const ran = await run(folder, ...args)
    expect([ran.code, ran.err]).toEqual([0, ''])
    openssl('pkey', '-in', 'root.pem', '-noout', '-passin', 'file:pass')
  })
})

describe('a CA above', () => {
  test('a request, what it is for, and the same request again', async () => {
    const ran = await ca('init', '--subordinate')
    expect(ran.code).toBe(0)
    expect(ran.err).toContain('sallyport ca import --chain FILE')
    writeFileSync(at('request.pem'), ran.out)
    expect(openssl('req', '-in', 'request.pem', '-noout', '-verify', '-subject')).toContain(
      'Sallyport issuing CA',
    )
    expect((await ca('init', '--subordinate')).out).toBe(ran.out)
    expect((await json('init', '--subordinate')).value).toEqual({ csr: ran.out })
    const { out } = await ca('status')
    expect(out).toContain('no certificate yet')
    expect(out).toContain('next: bring the answer of the CA above')
    for (const verb of ['rotate', 'export-root'])
      expect(
        complaint(
          await ca(
            verb,
            ...(verb === 'rotate' ? [] : ['--to', at('x.pem'), '--passphrase-file', at('pass')]),
          ),
        ),
      ).toMatchObject({
        exit: 1,
        code: 'ca.waiting',
        next: expect.stringContaining('ca import'),
      })
  })

  function answer(days = '365'): void {
    openssl(
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-384',
      '-nodes',
      '-keyout',
      'above.key',
      '-out',
      'above.pem',
      '-subj',
      '/CN=Above',
      '-days',
      '3650',
      '-addext',
      'keyUsage=critical,keyCertSign,cRLSign',
    )
    writeFileSync(
      at('ext'),
      'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n',
    )
    openssl(
      'x509',
      '-req',
      '-in',
      'request.pem',
      '-CA',
      'above.pem',
      '-CAkey',
      'above.key',
      '-out',
      'issuing.pem',
      '-days',
      days,
      '-extfile',
      'ext',
    )
    writeFileSync(
      at('chain.pem'),
      openssl('x509', '-in', 'issuing.pem') + openssl('x509', '-in', 'above.pem'),
    )
  }

  test('its answer: the node issues under it, and its root key was never here', async () => {
    from('asked')
    answer()
    const ran = await ca('import', '--chain', at('chain.pem'))
    expect(ran.code, ran.err).toBe(0)
    expect(ran.out).toMatch(/^issuing-[0-9a-f]{8}\.crt is served from now on and signs from 2/)
    expect((await ca('status')).out).toMatch(/^root +CN=Above .* elsewhere$/m)
    const away = complaint(
      await ca('export-root', '--to', at('x.pem'), '--passphrase-file', at('pass')),
    )
    expect(away).toMatchObject({ exit: 1, code: 'ca.exported' })
    expect(complaint(await ca('rotate'))).toMatchObject({
      exit: 1,
      code: 'ca.root_away',
      next: expect.stringContaining('--subordinate'),
    })
    const again = complaint(await ca('import', '--chain', at('chain.pem')))
    expect(again).toMatchObject({ exit: 1, code: 'ca.absent' })
  })

  test('beside a CA of our own it waits; as JSON with the second it begins', async () => {
    from('made')
    writeFileSync(at('request.pem'), (await ca('init', '--subordinate')).out)
    answer()
    const { value } = await json('import', '--chain', at('chain.pem'))
    expect(value['active_from']).toBeGreaterThan(Date.now() / 1_000 + 71 * 3_600)
    expect((await ca('status')).out).toMatch(/^next, from 2.*CN=Sallyport issuing CA/m)
  })

  const wrong = [
    ['an answer that ends too soon', 'chain.pem', '10', [], 2, 'ca.refused'],
    ['the issuing CA without its root', 'issuing.pem', '365', [], 2, 'ca.refused'],
    ['no certificates at all', 'ext', '365', [], 2, 'ca.refused'],
    ['a file that is not there', 'none.pem', '365', [], 2, 'usage'],
    ['the key of another', 'chain.pem', '365', ['--key', 'above.key'], 2, 'ca.refused'],
    ['a key that is none', 'chain.pem', '365', ['--key', 'ext'], 2, 'key.unreadable'],
    [
      'a key in a token that nobody configured',
      'chain.pem',
      '365',
      ['--pkcs11', 'k'],
      1,
      'hsm.key',
    ],
  ] as const
  test.for(wrong)('%s', async ([, chain, days, args, exit, code]) => {
    from('asked')
    answer(days)
    const given = args.map((each) => (each.startsWith('--') || each === 'k' ? each : at(each)))
    const before = readFileSync(at('node', 'ca', 'state.json'), 'utf8')
    const said = complaint(await ca('import', '--chain', at(chain), ...given))
    expect(said).toMatchObject({ exit, code })
    expect(readFileSync(at('node', 'ca', 'state.json'), 'utf8')).toBe(before)
  })

  test('of which certificate it is not so, since when, and what would help', async () => {
    from('asked')
    answer('10')
    const bring = async (...args: string[]) => await ca('import', '--chain', ...args)
    const soon = await bring(at('chain.pem'))
    expect(soon.err).toMatch(
      /not so: all are in date, .*\(O=[^:]*CN=Sallyport issuing CA[^:]*: 2\d{3}-\d\d-\d\d to 2\d{3}-\d\d-\d\d\)$/m,
    )
    answer()
    const other = await bring(at('chain.pem'), '--key', at('above.key'))
    expect(other.err).toMatch(
      /the private key is the key of the issuing CA \(O=.*CN=Sallyport issuing CA/,
    )
    expect(complaint(other).next).toMatch(/^bring the key of that certificate/)
    const [issuing = '', root = ''] = readFileSync(at('chain.pem'), 'utf8').split(
      /(?<=END CERTIFICATE-----\n)/,
    )
    writeFileSync(at('turned.pem'), root + issuing)
    const turned = await bring(at('turned.pem'))
    expect(turned.err).toContain('this chain begins with its root')
    expect(complaint(turned).next).toMatch(/^turn the file round/)
    expect((await bring(at('chain.pem'))).code).toBe(0)
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
    from('made')
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
    from('made')
    writeFileSync(at('node', 'ca', 'state.json'), '{"v":1}')
    expect(complaint(await ca('status'))).toMatchObject({ exit: 1, code: 'ca.state' })
  })

  test('another tenant in the configuration: which one is meant', async () => {
    from('made')
    writeFileSync(at('node.yaml'), `data: ${at('node')}\ntenant: other.sallyport.internal\n`)
    const ran = await run(folder, 'ca', 'rotate', '--config', at('node.yaml'), ...withRoot())
    expect(complaint(ran)).toMatchObject({
      exit: 1,
      code: 'ca.state',
      next: expect.stringContaining('tenant: main.sallyport.internal'),
    })
  })
})

describe('export-root', () => {
  test('the copy, its sum, the next step; a second time says where it went', async () => {
    from('kept')
    const args = ['--to', at('copy.pem'), '--passphrase-file', at('pass')]
    const ran = await ca('export-root', ...args)
    expect(ran.code, ran.err).toBe(0)
    const [sum = ''] = openssl('dgst', '-sha256', '-r', 'copy.pem').split(' ')
    expect(ran.out).toContain(sum)
    expect(ran.out).toContain('next: put it on two media')
    const again = complaint(
      await ca('export-root', '--to', at('b.pem'), '--passphrase-file', at('pass')),
    )
    expect(again).toMatchObject({
      exit: 1,
      code: 'ca.exported',
      what: expect.stringContaining(sum),
      next: expect.stringContaining('copy that file'),
    })
    expect(existsSync(at('b.pem'))).toBe(false)
  })

  test('as JSON', async () => {
    from('kept')
    const { value } = await json(
      'export-root',
      '--to',
      at('r.pem'),
      '--passphrase-file',
      at('pass'),
    )
    const sha256 = expect.stringMatching(/^[0-9a-f]{64}$/) as string
    expect(value).toEqual({ file: at('r.pem'), sha256, warnings: [] })
  })

  const refused = [
    ['no place named', [], 2, undefined],
    ['no passphrase', ['--to', 'r.pem'], 2, 'key.passphrase'],
    ['five characters', ['--to', 'r.pem', '--passphrase-file', 'short'], 2, 'key.passphrase'],
    ['a file of something else', ['--to', 'taken', '--passphrase-file', 'pass'], 2, 'key.mismatch'],
    [
      'a folder that cannot be written',
      ['--to', 'shut/r.pem', '--passphrase-file', 'pass'],
      2,
      'key.unwritable',
    ],
    [
      'a folder that is not there',
      ['--to', 'usb/r.pem', '--passphrase-file', 'pass'],
      2,
      'key.unwritable',
    ],
  ] as const
  test.for(refused)('%s: the key stays', async ([name, args, exit, code]) => {
    from('kept')
    writeFileSync(at('short'), 'short')
    writeFileSync(at('taken'), 'mine\n', { mode: 0o600 })
    // Root writes anywhere: a file where a folder should be stops everybody.
    writeFileSync(at('shut'), '')
    const given = args.map((each) => (each.startsWith('--') ? each : at(each)))
    const ran = await ca('export-root', ...given)
    expect([ran.code, complaint(ran).code]).toEqual([exit, code])
    expect(ran.err).toMatch(name === 'no place named' ? /--to/ : /^ {2}next {2}\w/m)
    expect(existsSync(at('node', 'ca', 'root.key.pem'))).toBe(true)
    expect(readFileSync(at('taken'), 'utf8')).toBe('mine\n')
  })
})

describe('rotate', () => {
  test('with the root key brought: when it signs, and what follows it', async () => {
    from('made')
    const { value } = await json('rotate', ...withRoot())
    expect(value['active_from']).toBeGreaterThan(Date.now() / 1_000 + 71 * 3_600)
    const { out } = await ca('status')
    expect(out).toMatch(/^active /m)
    expect(out).toMatch(/^next, from 2/m)
    expect(readFileSync(at('node', 'ca', 'state.json'), 'utf8')).not.toContain('"root.key.pem","')
    const waits = complaint(await ca('rotate', ...withRoot()))
    expect(waits).toMatchObject({
      exit: 1,
      code: 'ca.exists',
      next: expect.stringContaining('--now'),
    })
    expect((await ca('rotate', '--now')).code).toBe(0)
    // Nobody runs here, so the next command lets it sign, and is asked for the root again.
    expect(complaint(await ca('rotate')).code).toBe('ca.root_away')
    expect((await ca('status')).out).toMatch(/^retired /m)
  })

  test('--root: a new root, and that its key is here', async () => {
    from('made')
    const ran = await ca('rotate', '--root', ...withRoot())
    expect(ran.code, ran.err).toBe(0)
    expect(ran.err).toContain('next: the new root key is on this node')
    const status = await ca('status')
    expect(status.out).toMatch(/^root, other .*sealed file root-/m)
    expect(status.err).toContain('the root key is on this node')
    const args = ['--to', at('root2.pem'), '--passphrase-file', at('pass')]
    expect((await ca('export-root', ...args)).code).toBe(0)
    expect((await ca('status')).err).not.toContain('the root key is on this node')
  })

  const refused = [
    ['no root key', [], 1, 'ca.root_away'],
    [
      'a root key that is not there',
      ['--root-key', 'none', '--root-passphrase-file', 'pass'],
      2,
      'key.unreadable',
    ],
    [
      'another passphrase',
      ['--root-key', 'root.pem', '--root-passphrase-file', 'wrong'],
      2,
      'key.passphrase',
    ],
    ['no passphrase', ['--root-key', 'root.pem'], 2, 'usage'],
    [
      'the key of another root',
      ['--root-key', 'other.pem', '--root-passphrase-file', 'pass'],
      2,
      'key.mismatch',
    ],
    [
      'a key that others can read',
      ['--root-key', 'open.pem', '--root-passphrase-file', 'pass'],
      2,
      'key.exposed',
    ],
  ] as const
  test.for(refused)('%s: nothing changes', async ([, args, exit, code]) => {
    from('made')
    writeFileSync(at('wrong'), 'another passphrase\n')
    spawnSync('openssl', [
      'genpkey',
      '-algorithm',
      'EC',
      '-pkeyopt',
      'ec_paramgen_curve:P-384',
      '-aes256',
      '-pass',
      `pass:${PASSPHRASE}`,
      '-out',
      at('other.pem'),
    ])
    chmodSync(at('other.pem'), 0o600)
    writeFileSync(at('open.pem'), readFileSync(at('root.pem')), { mode: 0o644 })
    const before = readFileSync(at('node', 'ca', 'state.json'), 'utf8')
    const given = args.map((each) => (each.startsWith('--') ? each : at(each)))
    const ran = await ca('rotate', ...given)
    expect([ran.code, complaint(ran).code]).toEqual([exit, code])
    expect(ran.err).toMatch(/^ {2}next {2}\w|chmod 600/m)
    expect(readFileSync(at('node', 'ca', 'state.json'), 'utf8')).toBe(before)
  })
})

test('the help says which commands work where, and nothing but the command is printed', async () => {
  const help = await run(folder, 'ca', '--help')
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
      env: { ...process.env, SALLYPORT_HOME: folder },
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
    from('made')
    const said = await typed(['ca', 'export-root', '--data', at('node'), '--to', at('x.pem')])
    expect(said).toContain('ca.exported')
    expect(said).not.toContain('passphrase, ')
  })
})

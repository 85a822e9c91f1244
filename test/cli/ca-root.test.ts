/** `sallyport ca` and the root key: `export-root` and `rotate`, what they do, say, print as JSON, and refuse. */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import {
  at,
  ca,
  complaint,
  eachRow,
  from,
  json,
  openssl,
  PASSPHRASE,
  withRoot,
} from './ca-place.ts'

eachRow()

describe('export-root', () => {
  test('the copy, its sum, the next step; a second time says where it went', async () => {
    await from('kept')
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
    await from('kept')
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
    await from('kept')
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
    await from('made')
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
    await from('made')
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
    await from('made')
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

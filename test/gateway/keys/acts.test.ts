/** The CA as an operator handles it: made, sealed, exported, rotated, imported; and cut off at every step. */
import { execFileSync, spawnSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { instant, issueServer } from '#ca'
import { openAuthority } from '../../../gateway/authority.ts'
import { readConfig, type Config } from '../../../gateway/config.ts'
import { activateDue, initCa, rotate } from '../../../gateway/keys/acts.ts'
import { importIssuing, requestSubordinate } from '../../../gateway/keys/bring.ts'
import { exportRoot, initAway } from '../../../gateway/keys/export.ts'
import { openRoom, type CaRoom } from '../../../gateway/keys/room.ts'
import { lockCa, readState, type Act } from '../../../gateway/keys/state.ts'
import { describeCa } from '../../../gateway/keys/status.ts'
import { newKey } from '../../ca/support.ts'
import { spkiOf } from '../../ca/requests.ts'

// Sealing is slow on purpose, and this machine may be busy.
vi.setConfig({ testTimeout: 120_000 })

const DAY = 86_400_000
let folder: string
let config: Config
let room: CaRoom
let clock: number

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-keys-'))
  config = configOf(join(folder, 'node'))
  clock = Date.now()
  room = openRoom(config, 'operator|test', { now: () => clock })
})
afterEach(() => {
  rmSync(folder, { recursive: true })
})

function configOf(data: string, passphraseFile?: string): Config {
  const read = readConfig({ overrides: { data }, environment: {} })
  return passphraseFile === undefined ? read : { ...read, ca: { passphrase_file: passphraseFile } }
}
const at = (...parts: string[]) => join(folder, ...parts)
const inCa = (name: string) => at('node', 'ca', name)
const state = () => readState(at('node', 'ca'))
const copyOf = { text: 'correct horse battery', file: 'the test', beside: false }
function secret(name: string, text: string): string {
  writeFileSync(at(name), text, { mode: 0o600 })
  return at(name)
}
/** What a start of the gateway says of the CA, and what it opens. */
async function start(of = config) {
  const acts: Act[] = []
  const authority = await openAuthority(
    of,
    () => clock,
    async (act) => void acts.push(act),
  )
  return { authority, acts, said: acts.map((each) => each.message).join('\n') }
}

describe('at rest', () => {
  test('keys are sealed, openssl opens them with the passphrase and not without', async () => {
    await initCa(room)
    for (const name of ['root.key.pem', 'issuing.key.pem']) {
      expect(readFileSync(inCa(name), 'utf8')).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY-----/)
      const pass = (text: string) =>
        spawnSync('openssl', ['pkey', '-in', inCa(name), '-noout', '-passin', `pass:${text}`])
          .status
      expect(pass(room.passphrase.text)).toBe(0)
      expect(pass('another passphrase')).not.toBe(0)
    }
    const dump = execFileSync('openssl', ['asn1parse', '-in', inCa('root.key.pem')], {
      encoding: 'utf8',
    })
    expect(dump).toMatch(/id-scrypt|scrypt/)
    expect(dump).toMatch(/aes-256-cbc/)
  })

  test('another passphrase: the error names both files', async () => {
    await initCa(room)
    const file = secret('other', 'a wrong passphrase\n')
    await expect(start(configOf(at('node'), file))).rejects.toMatchObject({
      code: 'key.passphrase',
      message: expect.stringMatching(/other does not open .*issuing\.key\.pem/) as string,
    })
  })

  const bad = [
    { name: 'short', text: 'short\n', mode: 0o600, code: 'key.passphrase' },
    {
      name: 'two lines',
      text: 'correct horse\nbattery staple\n',
      mode: 0o600,
      code: 'key.passphrase',
    },
    { name: 'for all to read', text: 'correct horse battery\n', mode: 0o644, code: 'key.exposed' },
  ]
  test.for(bad)('a passphrase file that is $name is refused', async ({ text, mode, code }) => {
    const file = secret('pass', text)
    chmodSync(file, mode)
    await expect(initCa(openRoom(configOf(at('node'), file), 'x'))).rejects.toMatchObject({ code })
  })

  test('a passphrase file that is absent is refused', async () => {
    const named = configOf(at('node'), at('none'))
    await expect(initCa(openRoom(named, 'x'))).rejects.toMatchObject({ code: 'key.unreadable' })
  })

  test('keys that an earlier version left open are sealed by the first start, and stay the same', async () => {
    const older = await start()
    older.authority[Symbol.dispose]()
    for (const name of ['root', 'issuing']) {
      const key = createPrivateKey({
        key: readFileSync(inCa(`${name}.key.pem`)),
        passphrase: room.passphrase.text,
      })
      writeFileSync(inCa(`${name}.key.pem`), key.export({ type: 'pkcs8', format: 'pem' }), {
        mode: 0o600,
      })
    }
    rmSync(inCa('state.json'))
    const { authority, said } = await start()
    expect(authority.rootSha256).toBe(older.authority.rootSha256)
    expect(said).toMatch(/\broot\.key\.pem lay open and is sealed now/)
    expect(readFileSync(inCa('issuing.key.pem'), 'utf8')).toMatch(/ENCRYPTED/)
  })

  test('looking at a CA that is not there makes nothing', () => {
    expect(state()).toBeUndefined()
    expect(existsSync(at('node'))).toBe(false)
  })
})

describe('the root goes away', () => {
  test('exported: the copy opens, the node has none, the node goes on', async () => {
    await initCa(room)
    expect((await start()).authority.warnings.join()).toMatch(/export-root/)
    await exportRoot(room, at('root.pem'), copyOf)
    expect(existsSync(inCa('root.key.pem'))).toBe(false)
    const key = createPrivateKey({ key: readFileSync(at('root.pem')), passphrase: copyOf.text })
    const root = new X509Certificate(readFileSync(inCa('root.crt')))
    expect(root.checkPrivateKey(key)).toBe(true)
    const { authority, said } = await start()
    expect(authority.warnings.join()).not.toMatch(/export-root/)
    expect(said).toMatch(/\broot key exported to a file with SHA-256 [0-9a-f]{64}/)
    expect(describeCa(room, state()!).roots[0]?.key).toMatch(/^exported/)
    await expect(exportRoot(room, at('again.pem'), copyOf)).rejects.toMatchObject({
      code: 'ca.exported',
    })
  })

  test('a file of somebody else at the target is neither overwritten nor believed', async () => {
    await initCa(room)
    const file = secret(
      'root.pem',
      newKey('P-384').export({ type: 'pkcs8', format: 'pem' }).toString(),
    )
    const before = readFileSync(file, 'utf8')
    await expect(exportRoot(room, file, copyOf)).rejects.toMatchObject({ code: 'key.mismatch' })
    expect(readFileSync(file, 'utf8')).toBe(before)
    expect(existsSync(inCa('root.key.pem'))).toBe(true)
  })

  describe('to a stick', () => {
    /** vfat as it is mounted: every file looks open, whatever it was made with. */
    const stick = (fileSystem: number) => ({ mode: () => 0o100755, fileSystem: () => fileSystem })
    const onStick = (fileSystem: number) =>
      openRoom(config, 'operator|test', { now: () => clock, medium: stick(fileSystem) })
    const kinds = [
      ['vfat', 0x4d44],
      ['exfat', 0x2011bab0],
      ['ntfs3', 0x7366746e],
      ['fuse', 0x65735546],
      ['cifs, as a signed 32-bit number', 0xff534d42 | 0],
    ] as const
    test.for(kinds)(
      'of %s: the sealed key is taken, and comes back, with a warning',
      async ([, type]) => {
        await initCa(room)
        const { warnings } = await exportRoot(onStick(type), at('root.pem'), copyOf)
        expect(warnings).toEqual([
          expect.stringContaining(`the file system of ${at('root.pem')} keeps no permissions`),
        ])
        expect(existsSync(inCa('root.key.pem'))).toBe(false)
        const rootKey = { file: at('root.pem'), passphrase: copyOf.text }
        await rotate(onStick(type), { rootKey })
        expect(state()?.issuers).toHaveLength(2)
      },
    )

    test('an open key is not: neither as the copy, nor as the root that signs', async () => {
      await initCa(room)
      await exportRoot(room, at('root.pem'), copyOf)
      const pem = readFileSync(at('root.pem'))
      const open = createPrivateKey({ key: pem, passphrase: copyOf.text })
      const file = secret('open.pem', open.export({ type: 'pkcs8', format: 'pem' }).toString())
      await expect(
        rotate(onStick(0x4d44), { rootKey: { file, passphrase: '' } }),
      ).rejects.toMatchObject({
        code: 'key.exposed',
        message: expect.stringContaining('keeps no permissions') as string,
      })
    })

    test('a file system that has modes: what others may read is refused, sealed or not', async () => {
      await initCa(room)
      await expect(exportRoot(onStick(0xef53), at('root.pem'), copyOf)).rejects.toMatchObject({
        code: 'key.exposed',
        message: expect.stringContaining('chmod 600') as string,
      })
      expect(existsSync(inCa('root.key.pem'))).toBe(true)
    })

    test('the keys of the node itself do not lie there', async () => {
      await initCa(room)
      chmodSync(inCa('issuing.key.pem'), 0o755)
      await expect(start()).rejects.toMatchObject({ code: 'key.exposed' })
    })
  })

  test('an open copy at the target is not taken for the sealed one', async () => {
    await initCa(room)
    const sealed = readFileSync(inCa('root.key.pem'))
    const key = createPrivateKey({ key: sealed, passphrase: room.passphrase.text })
    const file = secret('root.pem', key.export({ type: 'pkcs8', format: 'pem' }).toString())
    await expect(exportRoot(room, file, copyOf)).rejects.toMatchObject({ code: 'key.mismatch' })
    expect(existsSync(inCa('root.key.pem'))).toBe(true)
  })

  test('a link where the unfinished copy is written: what it points to stays as it is', async () => {
    await initCa(room)
    const other = secret('other.pem', 'mine')
    symlinkSync(other, at('.unfinished-root.pem'))
    await exportRoot(room, at('root.pem'), copyOf)
    expect(readFileSync(other, 'utf8')).toBe('mine')
    expect(readdirSync(folder).toSorted()).toEqual(['node', 'other.pem', 'root.pem'])
  })

  const inside = [
    ['the CA itself', 'node/ca/copy.pem'],
    ['the data directory', 'node/copy.pem'],
    ['a folder in the data directory', 'node/keys/copy.pem'],
    ['the data directory by another name', 'link/copy.pem'],
  ] as const
  test.for(inside)('not into %s', async ([, to]) => {
    await initCa(room)
    symlinkSync(at('node'), at('link'))
    await expect(exportRoot(room, at(to), copyOf)).rejects.toMatchObject({ code: 'ca.exists' })
    expect(existsSync(inCa('root.key.pem'))).toBe(true)
    expect(existsSync(at(to))).toBe(false)
  })

  test('a folder whose name only begins like the data directory is another', async () => {
    await initCa(room)
    mkdirSync(at('node2'))
    await exportRoot(room, at('node2', 'root.pem'), copyOf)
    expect(existsSync(inCa('root.key.pem'))).toBe(false)
  })

  test('made and away in one act: no probe is left beside the copy', async () => {
    await initAway(room, at('root.pem'), copyOf)
    expect(existsSync(inCa('root.key.pem'))).toBe(false)
    expect(readdirSync(folder).toSorted()).toEqual(['node', 'root.pem'])
  })

  test('a place that is taken before the CA is made: nothing is made', async () => {
    const file = secret('root.pem', 'mine')
    await expect(initAway(room, file, copyOf)).rejects.toMatchObject({
      code: 'ca.exists',
      next: expect.stringContaining('nothing was changed') as string,
    })
    expect(existsSync(at('node'))).toBe(false)
    expect(readFileSync(file, 'utf8')).toBe('mine')
  })

  test('the medium fails when the CA is made: the error says that the root key is still here, and how it leaves', async () => {
    const step = (name: string) => {
      if (name === 'issuing certificate') secret('root.pem', 'mine')
    }
    const failing = openRoom(config, 'operator|test', { now: () => clock, step })
    await expect(initAway(failing, at('root.pem'), copyOf)).rejects.toMatchObject({
      code: 'key.mismatch',
      message: expect.stringMatching(
        /^the CA was made, but its root key is STILL on this node/,
      ) as string,
      next: expect.stringContaining(`sallyport ca export-root --data ${at('node')} `) as string,
    })
    expect(existsSync(inCa('root.key.pem'))).toBe(true)
    await exportRoot(room, at('other.pem'), copyOf)
    expect(existsSync(inCa('root.key.pem'))).toBe(false)
  })

  test('a rotation wants it back, and only that one', async () => {
    await initCa(room)
    await exportRoot(room, at('root.pem'), copyOf)
    await expect(rotate(room, {})).rejects.toMatchObject({ code: 'ca.root_away' })
    const other = {
      file: secret(
        'other.pem',
        newKey('P-384').export({ type: 'pkcs8', format: 'pem' }).toString(),
      ),
      passphrase: 'x',
    }
    await expect(rotate(room, { rootKey: other })).rejects.toMatchObject({ code: 'key.mismatch' })
    const wrong = { file: at('root.pem'), passphrase: 'wrong' }
    await expect(rotate(room, { rootKey: wrong })).rejects.toMatchObject({ code: 'key.passphrase' })
    const { activeFrom } = await rotate(room, {
      rootKey: { file: at('root.pem'), passphrase: copyOf.text },
    })
    expect(activeFrom).toBe(clock + 3 * DAY)
  })
})

describe('rotation', () => {
  test('served at once, signing after a device lifetime, the old key kept', async () => {
    await initCa(room)
    const { authority } = await start()
    const old = authority.issuers.active.id
    await rotate(room, {})
    expect(await authority.refresh()).toBe(true)
    expect(authority.issuers.active.id).toBe(old)
    expect(authority.issuers.all).toHaveLength(2)
    clock += 3 * DAY - 1
    expect(await authority.refresh()).toBe(false)
    clock += 1
    expect(await authority.refresh()).toBe(true)
    expect(authority.issuers.active.id).not.toBe(old)
    const retired = authority.issuers.all.find((each) => each.id === old)
    expect(retired?.signer).toBeDefined()
    expect(await authority.refresh()).toBe(false)
  })

  test('where device certificates live a week, the new CA waits a week', async () => {
    const longer = { ...config, est: { device_lifetime_hours: 168 } }
    room = openRoom(longer, 'operator|test', { now: () => clock })
    await initCa(room)
    expect((await rotate(room, {})).activeFrom).toBe(clock + 7 * DAY)
  })

  test('one at a time; --now ends the wait', async () => {
    await initCa(room)
    await rotate(room, {})
    await expect(rotate(room, {})).rejects.toMatchObject({ code: 'ca.exists' })
    await rotate(room, { now: true })
    expect(await activateDue(room)).toBe(true)
    expect(state()?.issuers.map((each) => each.state)).toEqual(['retired', 'active'])
  })

  test('a new root: clients of either root verify the port, by openssl', async () => {
    await initCa(room)
    const before = await start()
    const oldRoot = before.authority.rootPem
    await rotate(room, { root: true, now: true })
    const { authority } = await start()
    expect(authority.rootPem).not.toBe(oldRoot)
    const { issuers } = authority
    expect(issuers.crosses).toHaveLength(2)
    const server = await issueServer(
      {
        tenant: config.tenant,
        gateway: 'gw1',
        dnsNames: ['localhost'],
        ipAddresses: [],
        publicKey: spkiOf(newKey()),
        issuers,
        now: instant(clock),
        random: (length) => crypto.getRandomValues(new Uint8Array(length)),
      },
      { store: memoryStore(), log: async () => undefined },
    )
    const pem = (der: Uint8Array) => new X509Certificate(der).toString()
    writeFileSync(at('leaf.pem'), pem(server.row.certificate))
    writeFileSync(
      at('chain.pem'),
      [...server.chain.slice(1).map(pem), ...authority.crosses].join(''),
    )
    for (const anchor of [oldRoot, authority.rootPem]) {
      writeFileSync(at('anchor.pem'), anchor)
      const args = [
        'verify',
        '-x509_strict',
        '-no-CApath',
        '-CAfile',
        at('anchor.pem'),
        '-untrusted',
        at('chain.pem'),
        at('leaf.pem'),
      ]
      expect(spawnSync('openssl', args, { encoding: 'utf8' }).stdout).toMatch(/OK/)
    }
  })

  test('two commands at a time: the second is told to try again', async () => {
    await initCa(room)
    using _held = lockCa(at('node', 'ca'))
    await expect(rotate(room, {})).rejects.toMatchObject({ code: 'ca.busy' })
  })

  test('a state that is not ours stops the start, naming the place', async () => {
    await initCa(room)
    writeFileSync(inCa('state.json'), JSON.stringify({ ...state(), issuers: [{}] }))
    await expect(start()).rejects.toMatchObject({
      code: 'ca.state',
      message: expect.stringMatching(/issuers/) as string,
    })
  })
})

/** As much of a store as one server certificate needs. */
function memoryStore() {
  const rows = new Map<string, Record<string, unknown>>()
  const store = {
    record: async (wanted: { serial: string }) => {
      const row = {
        ...wanted,
        state: 'intent',
        certificate: null,
        fingerprint: null,
        firstUsedAt: null,
        revokedAt: null,
        revocationReason: null,
      }
      rows.set(wanted.serial, row)
      return await Promise.resolve({ outcome: 'fresh', row })
    },
    complete: async (serial: string, certificate: Uint8Array, fingerprint: string) =>
      await Promise.resolve({ ...rows.get(serial), state: 'active', certificate, fingerprint }),
  }
  return store as unknown as Parameters<typeof issueServer>[1]['store']
}

describe('kill -9', () => {
  const cuts = [
    ['init', 'root key', /an earlier start had ended/],
    ['init', 'issuing key', /an earlier start had ended/],
    ['init', 'root certificate', /an earlier start had ended/],
    ['init', 'issuing certificate', /\broot and issuing CA made/],
    ['init', 'state', /\broot and issuing CA made/],
    ['export-root', 'copy', null],
    ['export-root', 'verified', null],
    ['export-root', 'state', /had been exported and verified but was still here; it was removed/],
    ['export-root', 'removed', /\broot key exported/],
    ['rotate', 'issuing key', /issuing-\w+\.key\.pem belongs to an act that did not take effect/],
    [
      'rotate',
      'issuing certificate',
      /issuing-\w+\.crt belongs to an act that did not take effect/,
    ],
    ['rotate', 'state', /new issuing CA, signing from/],
    [
      'rotate --root',
      'root key',
      /\broot-\w+\.key\.pem belongs to an act that did not take effect/,
    ],
    [
      'rotate --root',
      'root certificate',
      /cross-\w+\.crt belongs to an act that did not take effect/,
    ],
    ['rotate --root', 'state', /new issuing CA and root, signing from/],
  ] as const
  test.for(cuts)('%s, after: %s', async ([act, step, says]) => {
    let before: string | undefined
    if (act !== 'init') {
      const first = await start()
      before = first.authority.rootSha256
    }
    const program = new URL('./dying.ts', import.meta.url).pathname
    const died = spawnSync(process.execPath, [program, at('node'), act, step, at('root.pem')], {
      encoding: 'utf8',
    })
    expect(died.signal, died.stderr).toBe('SIGKILL')
    const { authority, said } = await start()
    if (says !== null) expect(said).toMatch(says)
    if (before !== undefined) expect(authority.rootSha256).toBe(before)
    // The next start has nothing more to say, and the act can be done again, or has been done.
    const again = await start()
    expect(again.said).toBe('')
    if (act === 'export-root') {
      const gone = step === 'state' || step === 'removed'
      if (!gone) await exportRoot(room, at('root.pem'), copyOf)
      expect(existsSync(inCa('root.key.pem'))).toBe(false)
      const key = createPrivateKey({ key: readFileSync(at('root.pem')), passphrase: copyOf.text })
      expect(new X509Certificate(readFileSync(inCa('root.crt'))).checkPrivateKey(key)).toBe(true)
    } else if (act !== 'init') {
      const waiting = state()?.issuers.some((each) => each.state === 'next')
      expect(waiting).toBe(step === 'state')
      await rotate(room, { now: true })
      expect(await activateDue(room)).toBe(true)
    }
    expect(readdirSync(at('node', 'ca')).filter((name) => name.startsWith('.unfinished'))).toEqual(
      [],
    )
  })

  test('a half-written file is removed, and said', async () => {
    await start()
    writeFileSync(inCa('.unfinished-state.json'), '{"v":')
    expect((await start()).said).toMatch(/state\.json was being written when the process ended/)
  })
})

describe('a CA of another root', () => {
  const openssl = (...args: string[]) => {
    const made = spawnSync('openssl', args, { encoding: 'utf8', cwd: folder })
    if (made.status !== 0) throw new Error(made.stderr)
    return made.stdout
  }
  interface Foreign {
    readonly root?: string
    readonly between?: string
    readonly issuing?: string
    readonly key?: readonly string[]
    readonly days?: string
    readonly hash?: string
    readonly signer?: 'between' | 'stranger'
  }
  const CA_EXTENSIONS = 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n'
  const IDS = 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'
  const EC = ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256']

  /** root -> between -> issuing, each as the recipe says; gives the chain, issuing first. */
  function foreign(recipe: Foreign = {}, csr?: string): string {
    const sign = (
      name: string,
      by: string,
      extensions: string,
      days = '3650',
      hash = '-sha256',
    ) => {
      writeFileSync(at(`${name}.ext`), extensions)
      openssl(
        'x509',
        '-req',
        '-in',
        `${name}.csr`,
        '-CA',
        `${by}.crt`,
        '-CAkey',
        `${by}.key`,
        '-set_serial',
        '7',
        '-days',
        days,
        hash,
        '-extfile',
        `${name}.ext`,
        '-out',
        `${name}.crt`,
      )
    }
    const rootExtensions = recipe.root ?? CA_EXTENSIONS + 'subjectKeyIdentifier=hash\n'
    for (const name of ['root', 'stranger']) {
      openssl('genpkey', ...EC, '-out', `${name}.key`)
      openssl(
        'req',
        '-new',
        '-key',
        `${name}.key`,
        '-subj',
        '/O=Plant/CN=Plant Root',
        '-out',
        `${name}.csr`,
      )
      writeFileSync(at(`${name}.ext`), rootExtensions)
      openssl(
        'x509',
        '-req',
        '-in',
        `${name}.csr`,
        '-signkey',
        `${name}.key`,
        '-days',
        '3650',
        '-extfile',
        `${name}.ext`,
        '-out',
        `${name}.crt`,
      )
    }
    openssl('genpkey', ...EC, '-out', 'between.key')
    openssl(
      'req',
      '-new',
      '-key',
      'between.key',
      '-subj',
      '/O=Plant/CN=Plant Policy CA',
      '-out',
      'between.csr',
    )
    sign('between', 'root', recipe.between ?? CA_EXTENSIONS + IDS)
    if (csr === undefined) {
      openssl('genpkey', ...(recipe.key ?? EC), '-out', 'issuing.key')
      openssl(
        'req',
        '-new',
        '-key',
        'issuing.key',
        '-subj',
        '/O=Plant/CN=Plant Edge CA',
        '-out',
        'issuing.csr',
      )
    } else writeFileSync(at('issuing.csr'), csr)
    if (recipe.signer === 'stranger')
      openssl(
        'req',
        '-new',
        '-x509',
        '-key',
        'stranger.key',
        '-subj',
        '/O=Plant/CN=Plant Policy CA',
        '-days',
        '100',
        '-out',
        'stranger.crt',
      )
    sign(
      'issuing',
      recipe.signer ?? 'between',
      recipe.issuing ??
        'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n' +
          IDS,
      recipe.days,
      recipe.hash,
    )
    // Their dates are openssl's; ours must not be before them.
    clock = Date.now() + 1_000
    return ['issuing', 'between', 'root']
      .map((name) => readFileSync(at(`${name}.crt`), 'utf8'))
      .join('')
  }
  const key = (name = 'issuing') => ({ pem: readFileSync(at(`${name}.key`), 'utf8') })

  test('chain and key: a fresh node issues under it, and serves the whole chain', async () => {
    const chain = foreign()
    await importIssuing(room, { chain, key: key() })
    const { authority, said } = await start()
    expect(said).toMatch(/issuing CA of another root imported/)
    expect(authority.issuers.active.x509.subject).toMatch(/Plant Edge CA/)
    expect(authority.issuers.active.above).toHaveLength(1)
    expect(describeCa(room, state()!).roots[0]?.key).toBe('elsewhere')
    await expect(rotate(room, {})).rejects.toMatchObject({ code: 'ca.root_away' })
  })

  test('a request to a CA above: the key never leaves, the gateway waits and says so', async () => {
    const csr = await requestSubordinate(room)
    expect(await requestSubordinate(room)).toBe(csr)
    await expect(start()).rejects.toMatchObject({
      code: 'ca.waiting',
      message: expect.stringMatching(/sallyport ca import --chain/) as string,
    })
    await importIssuing(room, { chain: foreign({}, csr) })
    expect((await start()).authority.issuers.active.x509.issuer).toMatch(/Plant Policy CA/)
    expect(state()?.requested).toBeNull()
  })

  test('beside a CA of our own it waits like any other', async () => {
    await initCa(room)
    await importIssuing(room, { chain: foreign(), key: key() })
    const { authority } = await start()
    expect(authority.issuers.active.x509.subject).toMatch(/Sallyport issuing CA/)
    expect(authority.issuers.all).toHaveLength(2)
    clock += 3 * DAY
    await authority.refresh()
    expect(authority.issuers.active.x509.subject).toMatch(/Plant Edge CA/)
    expect(authority.rootPem).toBe(new X509Certificate(readFileSync(at('root.crt'))).toString())
  })

  test('a sealed key wants its passphrase', async () => {
    const chain = foreign()
    openssl(
      'pkcs8',
      '-topk8',
      '-in',
      'issuing.key',
      '-out',
      'sealed.key',
      '-passout',
      'pass:secret',
    )
    const sealed = key('sealed')
    await expect(importIssuing(room, { chain, key: sealed })).rejects.toMatchObject({
      code: 'key.unreadable',
    })
    await expect(
      importIssuing(room, { chain, key: { ...sealed, passphrase: 'no' } }),
    ).rejects.toMatchObject({ code: 'key.passphrase' })
    await importIssuing(room, { chain, key: { ...sealed, passphrase: 'secret' } })
  })

  const ISSUING = 'basicConstraints=critical,CA:TRUE,pathlen:0\n'
  const KU = 'keyUsage=critical,keyCertSign,cRLSign\n'
  const refused: readonly (readonly [string, Foreign & { otherKey?: true }, RegExp])[] = [
    ['signed by a stranger of the same name', { signer: 'stranger' }, /signed by the next/],
    [
      'no CA',
      { issuing: 'basicConstraints=critical,CA:FALSE\n' + KU + IDS },
      /says CA, critically/,
    ],
    [
      'basic constraints not critical',
      { issuing: 'basicConstraints=CA:TRUE\n' + KU + IDS },
      /says CA, critically/,
    ],
    [
      'path length exceeded',
      { between: 'basicConstraints=critical,CA:TRUE,pathlen:0\n' + KU + IDS },
      /no path length/,
    ],
    [
      'may not sign CRLs',
      { issuing: ISSUING + 'keyUsage=critical,keyCertSign\n' + IDS },
      /certificates and CRLs/,
    ],
    [
      'may not sign certificates',
      { issuing: ISSUING + 'keyUsage=critical,cRLSign\n' + IDS },
      /certificates and CRLs/,
    ],
    [
      'no subject key identifier',
      { issuing: ISSUING + KU + 'subjectKeyIdentifier=none\nauthorityKeyIdentifier=keyid\n' },
      /subject key identifier/,
    ],
    ['another private key', { otherKey: true }, /private key is the key/],
    [
      'an RSA key',
      { key: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'] },
      /keys and signatures are strong/,
    ],
    ['signed with SHA-1', { hash: '-sha1' }, /keys and signatures are strong/],
    ['ends in 20 days', { days: '20' }, /30 days more/],
    [
      'for e-mail only',
      { issuing: ISSUING + KU + IDS + 'extendedKeyUsage=emailProtection\n' },
      /extended key usage/,
    ],
    [
      'for any purpose, which is none of TLS to OpenSSL',
      { issuing: ISSUING + KU + IDS + 'extendedKeyUsage=anyExtendedKeyUsage\n' },
      /extended key usage/,
    ],
    [
      'another tenant by URI constraint',
      { issuing: ISSUING + KU + IDS + 'nameConstraints=critical,permitted;URI:.other.example\n' },
      /name constraints/,
    ],
    [
      'DNS names elsewhere',
      { between: CA_EXTENSIONS + IDS + 'nameConstraints=critical,permitted;DNS:other.example\n' },
      /name constraints/,
    ],
    [
      'loopback excluded',
      {
        issuing: ISSUING + KU + IDS + 'nameConstraints=critical,excluded;IP:127.0.0.0/255.0.0.0\n',
      },
      /name constraints/,
    ],
    [
      'an unknown critical extension',
      { issuing: ISSUING + KU + IDS + '1.2.3.4=critical,ASN1:NULL\n' },
      /no critical extension/,
    ],
  ]
  test.for(refused)('refused: %s', async ([, { otherKey, ...recipe }, says]) => {
    const chain = foreign(recipe)
    const given = otherKey === true ? key('between') : key()
    await expect(importIssuing(room, { chain, key: given })).rejects.toMatchObject({
      code: 'ca.refused',
      message: expect.stringMatching(says) as string,
    })
    expect(state()).toBeUndefined()
  })

  test('the same CA twice, a chain of one, no chain', async () => {
    const chain = foreign()
    await importIssuing(room, { chain, key: key() })
    await expect(importIssuing(room, { chain, key: key() })).rejects.toMatchObject({
      code: 'ca.refused',
    })
    const alone = readFileSync(at('issuing.crt'), 'utf8')
    for (const short of [alone, ''])
      await expect(importIssuing(room, { chain: short, key: key() })).rejects.toThrow(
        /at least two/,
      )
  })

  test('constraints that allow our names are no obstacle', async () => {
    const constraints =
      'nameConstraints=critical,permitted;URI:main.sallyport.internal,permitted;DNS:localhost,permitted;IP:127.0.0.0/255.0.0.0,permitted;IP:0:0:0:0:0:0:0:1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n'
    await importIssuing(room, {
      chain: foreign({ issuing: ISSUING + KU + IDS + constraints }),
      key: key(),
    })
    expect((await start()).authority.issuers.active.x509.subject).toMatch(/Plant Edge CA/)
  })
})

/** Keys of the CA at rest: sealed, opened with the passphrase and not without. */
import { execFileSync, spawnSync } from 'node:child_process'
import { createPrivateKey } from 'node:crypto'
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { initCa } from '../../../gateway/keys/acts.ts'
import { openRoom } from '../../../gateway/keys/room.ts'
import { at, configOf, eachRow, here, inCa, made, secret, start, state } from './place.ts'

eachRow()

describe('at rest', () => {
  test('keys are sealed, openssl opens them with the passphrase and not without', async () => {
    await made()
    for (const name of ['root.key.pem', 'issuing.key.pem']) {
      expect(readFileSync(inCa(name), 'utf8')).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY-----/)
      const pass = (text: string) =>
        spawnSync('openssl', ['pkey', '-in', inCa(name), '-noout', '-passin', `pass:${text}`])
          .status
      expect(pass(here.room.passphrase.text)).toBe(0)
      expect(pass('another passphrase')).not.toBe(0)
    }
    const dump = execFileSync('openssl', ['asn1parse', '-in', inCa('root.key.pem')], {
      encoding: 'utf8',
    })
    expect(dump).toMatch(/id-scrypt|scrypt/)
    expect(dump).toMatch(/aes-256-cbc/)
  })

  test('another passphrase: the error names both files', async () => {
    await made()
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
        passphrase: here.room.passphrase.text,
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

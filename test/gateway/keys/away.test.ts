/** The root key leaves the node: what takes the copy, what must not, and that it comes back. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { rotate } from '../../../gateway/keys/acts.ts'
import { exportRoot, initAway } from '../../../gateway/keys/export.ts'
import { openRoom } from '../../../gateway/keys/room.ts'
import { describeCa } from '../../../gateway/keys/status.ts'
import { newKey } from '../../ca/support.ts'
import { at, copyOf, DAY, eachRow, here, inCa, made, secret, start, state } from './place.ts'

eachRow()

describe('the root goes away', () => {
  test('exported: the copy opens, the node has none, the node goes on', async () => {
    await made()
    expect((await start()).authority.warnings.join()).toMatch(/export-root/)
    await exportRoot(here.room, at('root.pem'), copyOf)
    expect(existsSync(inCa('root.key.pem'))).toBe(false)
    const key = createPrivateKey({ key: readFileSync(at('root.pem')), passphrase: copyOf.text })
    const root = new X509Certificate(readFileSync(inCa('root.crt')))
    expect(root.checkPrivateKey(key)).toBe(true)
    const { authority, said } = await start()
    expect(authority.warnings.join()).not.toMatch(/export-root/)
    expect(said).toMatch(/\broot key exported to a file with SHA-256 [0-9a-f]{64}/)
    expect(describeCa(here.room, state()!).roots[0]?.key).toMatch(/^exported/)
    await expect(exportRoot(here.room, at('again.pem'), copyOf)).rejects.toMatchObject({
      code: 'ca.exported',
    })
  })

  test('a file of somebody else at the target is neither overwritten nor believed', async () => {
    await made()
    const file = secret(
      'root.pem',
      newKey('P-384').export({ type: 'pkcs8', format: 'pem' }).toString(),
    )
    const before = readFileSync(file, 'utf8')
    await expect(exportRoot(here.room, file, copyOf)).rejects.toMatchObject({
      code: 'key.mismatch',
    })
    expect(readFileSync(file, 'utf8')).toBe(before)
    expect(existsSync(inCa('root.key.pem'))).toBe(true)
  })

  describe('to a stick', () => {
    /** vfat as it is mounted: every file looks open, whatever it was made with. */
    const stick = (fileSystem: number) => ({ mode: () => 0o100755, fileSystem: () => fileSystem })
    const onStick = (fileSystem: number) =>
      openRoom(here.config, 'operator|test', { now: () => here.clock, medium: stick(fileSystem) })
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
        await made()
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
      await made()
      await exportRoot(here.room, at('root.pem'), copyOf)
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
      await made()
      await expect(exportRoot(onStick(0xef53), at('root.pem'), copyOf)).rejects.toMatchObject({
        code: 'key.exposed',
        message: expect.stringContaining('chmod 600') as string,
      })
      expect(existsSync(inCa('root.key.pem'))).toBe(true)
    })

    test('the keys of the node itself do not lie there', async () => {
      await made()
      chmodSync(inCa('issuing.key.pem'), 0o755)
      await expect(start()).rejects.toMatchObject({ code: 'key.exposed' })
    })
  })

  test('an open copy at the target is not taken for the sealed one', async () => {
    await made()
    const sealed = readFileSync(inCa('root.key.pem'))
    const key = createPrivateKey({ key: sealed, passphrase: here.room.passphrase.text })
    const file = secret('root.pem', key.export({ type: 'pkcs8', format: 'pem' }).toString())
    await expect(exportRoot(here.room, file, copyOf)).rejects.toMatchObject({
      code: 'key.mismatch',
    })
    expect(existsSync(inCa('root.key.pem'))).toBe(true)
  })

  test('a link where the unfinished copy is written: what it points to stays as it is', async () => {
    await made()
    const other = secret('other.pem', 'mine')
    symlinkSync(other, at('.unfinished-root.pem'))
    await exportRoot(here.room, at('root.pem'), copyOf)
    expect(readFileSync(other, 'utf8')).toBe('mine')
    expect(readdirSync(here.folder).toSorted()).toEqual(['node', 'other.pem', 'root.pem'])
  })

  const inside = [
    ['the CA itself', 'node/ca/copy.pem'],
    ['the data directory', 'node/copy.pem'],
    ['a folder in the data directory', 'node/keys/copy.pem'],
    ['the data directory by another name', 'link/copy.pem'],
  ] as const
  test.for(inside)('not into %s', async ([, to]) => {
    await made()
    symlinkSync(at('node'), at('link'))
    await expect(exportRoot(here.room, at(to), copyOf)).rejects.toMatchObject({ code: 'ca.exists' })
    expect(existsSync(inCa('root.key.pem'))).toBe(true)
    expect(existsSync(at(to))).toBe(false)
  })

  test('a folder whose name only begins like the data directory is another', async () => {
    await made()
    mkdirSync(at('node2'))
    await exportRoot(here.room, at('node2', 'root.pem'), copyOf)
    expect(existsSync(inCa('root.key.pem'))).toBe(false)
  })

  test('made and away in one act: no probe is left beside the copy', async () => {
    await initAway(here.room, at('root.pem'), copyOf)
    expect(existsSync(inCa('root.key.pem'))).toBe(false)
    expect(readdirSync(here.folder).toSorted()).toEqual(['node', 'root.pem'])
  })

  test('a place that is taken before the CA is made: nothing is made', async () => {
    const file = secret('root.pem', 'mine')
    await expect(initAway(here.room, file, copyOf)).rejects.toMatchObject({
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
    const failing = openRoom(here.config, 'operator|test', { now: () => here.clock, step })
    await expect(initAway(failing, at('root.pem'), copyOf)).rejects.toMatchObject({
      code: 'key.mismatch',
      message: expect.stringMatching(
        /^the CA was made, but its root key is STILL on this node/,
      ) as string,
      next: expect.stringContaining(`sallyport ca export-root --data ${at('node')} `) as string,
    })
    expect(existsSync(inCa('root.key.pem'))).toBe(true)
    await exportRoot(here.room, at('other.pem'), copyOf)
    expect(existsSync(inCa('root.key.pem'))).toBe(false)
  })

  test('a rotation wants it back, and only that one', async () => {
    await made()
    await exportRoot(here.room, at('root.pem'), copyOf)
    await expect(rotate(here.room, {})).rejects.toMatchObject({ code: 'ca.root_away' })
    const other = {
      file: secret(
        'other.pem',
        newKey('P-384').export({ type: 'pkcs8', format: 'pem' }).toString(),
      ),
      passphrase: 'x',
    }
    await expect(rotate(here.room, { rootKey: other })).rejects.toMatchObject({
      code: 'key.mismatch',
    })
    const wrong = { file: at('root.pem'), passphrase: 'wrong' }
    await expect(rotate(here.room, { rootKey: wrong })).rejects.toMatchObject({
      code: 'key.passphrase',
    })
    const { activeFrom } = await rotate(here.room, {
      rootKey: { file: at('root.pem'), passphrase: copyOf.text },
    })
    expect(activeFrom).toBe(here.clock + 3 * DAY)
  })
})

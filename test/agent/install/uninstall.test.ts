/** What an uninstallation leaves, what it says of that, and what it does not touch; in an image. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { uninstallAgent } from '#agent'
import { Place } from '../../../agent-tunnel/agent/install/place.ts'
import { printUnit } from '../../../agent-tunnel/agent/install/unit.ts'

let root: string
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'sallyport-uninstall-')))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const at = (path: string) => join(root, path)
const LIB = 'usr/local/lib/sallyport'
const COMMAND = 'usr/local/bin/sallyport-agent'
const UNIT = 'etc/systemd/system/sallyport-agent.service'

/** A directory that a device has used. */
function data(path: string): void {
  mkdirSync(at(`${path}/identity/a`), { recursive: true })
  for (const name of ['agent.json', 'clock', 'identity/a/key.pem'])
    writeFileSync(at(`${path}/${name}`), 'x')
}

/** An installation whose data is at `dataDir`. */
function installed(dataDir: string): void {
  const place = new Place(root)
  writeFileSync(at('made'), '#!/bin/sh\n')
  const program = { file: at('made'), node: undefined }
  place.program(program)
  place.users('sallyport', dataDir, false)
  const exec = place.exec(program)
  place.unit(printUnit({ exec, dataDir, user: 'sallyport', level: 2, spawns: 'none' }))
  place.enable()
  data(dataDir)
}

type Options = Parameters<typeof uninstallAgent>[0]
const uninstall = async (more: Partial<Options> = {}) =>
  await uninstallAgent({ root, dataDir: undefined, purge: true, did: () => undefined, ...more })

describe('the data that is purged', () => {
  test('is what the unit names, wherever that is', async () => {
    installed('/srv/plant/device')
    expect(await uninstall()).toEqual({ dataDir: '/srv/plant/device', data: 'purged' })
    expect([existsSync(at('srv/plant/device')), existsSync(at('srv/plant'))]).toEqual([false, true])
    expect([LIB, COMMAND, UNIT].filter((path) => existsSync(at(path)))).toEqual([])
    expect(await uninstall()).toEqual({ dataDir: '/var/lib/sallyport', data: 'none' })
  })

  test('and without --purge stays, and is said to', async () => {
    installed('/srv/device')
    const did: string[] = []
    const left = await uninstall({ purge: false, did: (what) => did.push(what) })
    expect(left).toEqual({ dataDir: '/srv/device', data: 'kept' })
    expect(did).toContain("/srv/device stays, with the device's key")
    expect(existsSync(at('srv/device/identity/a/key.pem'))).toBe(true)
    expect((await uninstall({ dataDir: '/srv/device' })).data).toBe('purged')
  })

  test('is reached by a link: key and link are gone', async () => {
    data('disk/device')
    mkdirSync(at('var/lib'), { recursive: true })
    symlinkSync('../../disk/device', at('var/lib/sallyport'))
    expect((await uninstall()).data).toBe('purged')
    expect([existsSync(at('disk/device')), existsSync(at('disk'))]).toEqual([false, true])
  })
})

describe('refused before anything is changed', () => {
  test('another directory than the service has', async () => {
    installed('/srv/device')
    data('var/lib/other')
    await expect(uninstall({ dataDir: '/var/lib/other' })).rejects.toMatchObject({
      code: 'install.unfit',
      message: expect.stringContaining('/srv/device') as string,
    })
    expect(existsSync(at('var/lib/other/agent.json'))).toBe(true)
    expect(existsSync(at(UNIT))).toBe(true)
  })

  test('a directory that is no device’s', async () => {
    mkdirSync(at('home/somebody'), { recursive: true })
    await expect(uninstall({ dataDir: '/home' })).rejects.toMatchObject({ code: 'install.unfit' })
    expect(existsSync(at('home/somebody'))).toBe(true)
  })

  test('an image whose data lies outside of it', async () => {
    const outside = realpathSync(mkdtempSync(join(tmpdir(), 'sallyport-outside-')))
    try {
      writeFileSync(join(outside, 'agent.json'), 'x')
      mkdirSync(at('var/lib'), { recursive: true })
      symlinkSync(outside, at('var/lib/sallyport'))
      await expect(uninstall()).rejects.toMatchObject({ code: 'install.unfit' })
      expect(existsSync(join(outside, 'agent.json'))).toBe(true)
    } finally {
      rmSync(outside, { recursive: true })
    }
  })

  test('a unit of somebody else’s, which does not say where the data is', async () => {
    installed('/srv/device')
    writeFileSync(at(UNIT), '[Service]\nExecStart=/opt/agent\n')
    await expect(uninstall()).rejects.toMatchObject({ code: 'install.unfit' })
    expect((await uninstall({ dataDir: '/srv/device' })).data).toBe('purged')
  })
})

describe('cut in the middle', () => {
  test('after the data: unit, command and program are there to go on with', async () => {
    installed('/srv/device')
    const cut = () => {
      throw new Error('the power is gone')
    }
    await expect(uninstall({ did: cut })).rejects.toThrow('the power is gone')
    expect(existsSync(at('srv/device'))).toBe(false)
    for (const path of [LIB, COMMAND, UNIT])
      expect([path, existsSync(at(path))]).toEqual([path, true])
    expect(await uninstall()).toEqual({ dataDir: '/srv/device', data: 'none' })
    for (const path of [LIB, COMMAND, UNIT]) expect(existsSync(at(path))).toBe(false)
  })

  test('within the data: what is left of it still says whose it is', async () => {
    installed('/srv/device')
    rmSync(at('srv/device/identity'), { recursive: true })
    expect((await uninstall()).data).toBe('purged')
    mkdirSync(at('srv/device'))
    expect((await uninstall({ dataDir: '/srv/device' })).data).toBe('purged')
    expect(existsSync(at('srv/device'))).toBe(false)
  })

  test('at the command: what it runs is still there', async () => {
    installed('/srv/device')
    rmSync(at(COMMAND))
    mkdirSync(at(COMMAND))
    await expect(uninstall()).rejects.toThrow()
    expect(existsSync(at(`${LIB}/sallyport-agent`))).toBe(true)
  })
})

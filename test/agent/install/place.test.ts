/** Where an installed agent lies: what the user of the service may reach of it, whoever installs it and however. */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Place } from '../../../agent-tunnel/agent/install/place.ts'

let root: string
let umask: number
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sallyport-place-'))
  chmodSync(root, 0o755)
  // As the script that a gateway serves.
  umask = process.umask(0o077)
})
afterEach(() => {
  process.umask(umask)
  rmSync(root, { recursive: true, force: true })
})

const modeOf = (path: string) => (statSync(join(root, path)).mode & 0o7777).toString(8)

/** An agent that says who runs it. */
function program() {
  const file = join(root, 'made')
  writeFileSync(file, '#!/bin/sh\nid -u\n', { mode: 0o700 })
  return { file, node: undefined }
}

describe('the root', () => {
  test('none is refused: it is not this machine without its guards', () => {
    expect(() => new Place('')).toThrow(expect.objectContaining({ code: 'install.unfit' }))
  })

  test('this machine by whatever name is this machine', () => {
    const link = join(root, 'link')
    symlinkSync('/', link)
    const names = ['/', '//', '/.', '/tmp/..', link, `${link}/`]
    expect(names.map((name) => new Place(name).live)).toEqual(names.map(() => true))
    expect([root, `${root}/none`, '.'].map((name) => new Place(name).live)).toEqual([
      false,
      false,
      false,
    ])
  })
})

describe('under umask 077', () => {
  test('every folder and file is for everybody; the data is not opened', () => {
    const place = new Place(root)
    place.begin()
    place.program(program())
    place.users('sallyport', '/srv/plant/data', false)
    place.above('/srv/plant/data')
    place.unit('[Service]\n')
    place.enable()
    for (const folder of [
      'usr/local/lib/sallyport',
      'usr/local/bin',
      'etc/sysusers.d',
      'etc/tmpfiles.d',
      'etc/systemd/system',
      'etc/systemd/system/multi-user.target.wants',
      'srv',
      'srv/plant',
    ])
      expect([folder, modeOf(folder)]).toEqual([folder, '755'])
    expect(modeOf('usr/local/lib/sallyport/sallyport-agent')).toBe('755')
    expect(modeOf('usr/local/bin/sallyport-agent')).toBe('755')
    expect(modeOf('etc/systemd/system/sallyport-agent.service')).toBe('644')
    expect(existsSync(join(root, 'srv/plant/data'))).toBe(false)
    expect(process.umask()).toBe(0o077)
  })

  test('what an earlier one left closed is opened by the next, which changes nothing else', () => {
    const lib = join(root, 'usr/local/lib/sallyport')
    mkdirSync(lib, { recursive: true })
    const place = new Place(root)
    const made = program()
    expect(place.program(made)).toBe(true)
    chmodSync(lib, 0o700)
    chmodSync(join(lib, 'sallyport-agent'), 0o700)
    expect(place.program(made)).toBe(false)
    expect(modeOf('usr/local/lib/sallyport')).toBe('755')
    expect(modeOf('usr/local/lib/sallyport/sallyport-agent')).toBe('755')
  })

  const mayBeNobody = process.geteuid?.() === 0
  test.skipIf(!mayBeNobody)(
    mayBeNobody ? 'a user without any privilege runs it' : 'only root can be somebody else',
    () => {
      const place = new Place(root)
      place.program(program())
      const [own = ''] = place.exec({ file: '', node: undefined })
      const ran = spawnSync(place.at(own), { uid: 65_534, gid: 65_534, cwd: '/' })
      expect([ran.error, String(ran.stdout)]).toEqual([undefined, '65534\n'])
    },
  )
})

/** The unit of the agent: what each level may, what no path can smuggle in, and what systemd says of it. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  capabilitiesOf,
  printUnit,
  spawnsOf,
  UNIT,
  type Service,
} from '../../../agent-tunnel/agent/install/unit.ts'
import { parseConfig } from '../../../agent-tunnel/agent/config.ts'

const service: Service = {
  exec: ['/usr/local/lib/sallyport/sallyport-agent'],
  dataDir: '/var/lib/sallyport',
  user: 'sallyport',
  level: 2,
  spawns: 'none',
}

/** The values of one setting, in order. */
function values(unit: string, key: string): string[] {
  return unit
    .split('\n')
    .flatMap((line) => (line.startsWith(`${key}=`) ? [line.slice(key.length + 1)] : []))
}

describe('what it may', () => {
  test.for([
    { level: 2, spawns: 'none', has: 'CAP_SYS_PTRACE CAP_DAC_READ_SEARCH' },
    { level: 2, spawns: 'own', has: 'CAP_SYS_PTRACE CAP_DAC_READ_SEARCH' },
    { level: 0, spawns: 'none', has: '' },
    { level: 0, spawns: 'own', has: '' },
    {
      level: 0,
      spawns: 'others',
      has: 'CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_CHOWN',
    },
  ] as const)('level $level, programs of $spawns: exactly "$has"', ({ level, spawns, has }) => {
    const unit = printUnit({ ...service, level, spawns })
    expect(capabilitiesOf({ level, spawns }).join(' ')).toBe(has)
    expect(values(unit, 'AmbientCapabilities')).toEqual([has])
    expect(values(unit, 'CapabilityBoundingSet')).toEqual([has])
    expect(values(unit, 'NoNewPrivileges')).toEqual(['yes'])
    expect(values(unit, 'ProtectSystem')).toEqual([spawns === 'none' ? 'strict' : 'full'])
    expect(values(unit, 'ReadWritePaths')).toEqual(['/var/lib/sallyport'])
    // Whoever hides other users' processes from it takes it to level 0: docs/process-scope.md.
    expect(unit).not.toMatch(/^(?:ProtectProc|ProcSubset|PrivateUsers)=/m)
    // Each of these lays something over a part of /proc, and then nobody without privilege is given another one.
    const covering = /^(?:ProtectHostname|ProtectKernelLogs|ProtectKernelTunables)=yes$/gm
    expect(unit.match(covering)?.length ?? 0).toBe(spawns === 'none' ? 3 : 0)
  })

  test.for([
    { users: [], spawns: 'none' },
    { users: ['sallyport'], spawns: 'own' },
    { users: [990, 'sallyport'], spawns: 'own' },
    { users: ['sallyport', 'diagnosis'], spawns: 'others' },
  ])('programs as $users start $spawns', ({ users, spawns }) => {
    const targets = users.map((user, at) => [`p${at}`, { spawn: { argv: ['/bin/true'], user } }])
    const config = parseConfig(
      JSON.stringify({
        v: 1,
        gateway: 'https://gw:8443',
        device: 'press-07',
        ca_sha256: 'a'.repeat(64),
        targets: { ...Object.fromEntries(targets), plc: { tcp: '127.0.0.1:1' } },
      }),
      '/data',
    )
    expect(spawnsOf(config.targets.values(), ['sallyport', '990'])).toBe(spawns)
  })
})

describe('a path that a unit would read as something else is refused', () => {
  const bad = ['/a b', '/a"b', "/a'b", '/a%h', '/$HOME', '/a\nUser=root', '/a;b', '/a\\x20b', '']
  test.for(bad)('%j', (path) => {
    expect(() => printUnit({ ...service, dataDir: path })).toThrow('cannot be made of the path')
    expect(() => printUnit({ ...service, exec: [path] })).toThrow('cannot be made of the path')
  })
})

const analyze = (args: readonly string[]) => spawnSync('systemd-analyze', args)
const noSystemd = analyze(['--version']).status !== 0
describe.skipIf(noSystemd)(noSystemd ? 'systemd-analyze is not here' : 'systemd-analyze', () => {
  /** A root with the unit in it; what it starts is there. */
  function image(unit: string): Disposable & { readonly root: string; readonly file: string } {
    const root = mkdtempSync(join(tmpdir(), 'sallyport-unit-'))
    const [units, lib] = [join(root, 'etc/systemd/system'), join(root, 'usr/local/lib/sallyport')]
    for (const folder of [units, lib]) mkdirSync(folder, { recursive: true })
    writeFileSync(join(lib, 'sallyport-agent'), '#!/bin/sh\n', { mode: 0o755 })
    const file = join(units, UNIT)
    writeFileSync(file, unit)
    return { root, file, [Symbol.dispose]: () => rmSync(root, { recursive: true }) }
  }

  const kinds = [
    { spawns: 'none', most: 2.4 },
    { spawns: 'own', most: 4 },
    { spawns: 'others', most: 6 },
  ] as const
  test.for(kinds)('knows every line, programs of $spawns', ({ spawns, most }) => {
    using made = image(printUnit({ ...service, spawns }))
    const verified = analyze([
      'verify',
      '--man=no',
      '--recursive-errors=no',
      `--root=${made.root}`,
      UNIT,
    ])
    // It also speaks of units that an empty root has not; of ours it must say nothing.
    const ours = String(verified.stderr)
      .split('\n')
      .filter((line) => line.includes('sallyport'))
    expect(ours.filter((line) => !/Failed to add dependency|not found/i.test(line))).toEqual([])
    const said = execFileSync(
      'systemd-analyze',
      ['security', '--offline=true', '--no-pager', `--root=${made.root}`, UNIT],
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] },
    )
    const exposure = Number(/exposure level for \S+: ([\d.]+)/.exec(said)?.[1])
    expect(exposure).toBeLessThanOrEqual(most)
  })

  test('a line it does not know is told: the row above can fail', () => {
    using made = image(printUnit(service).replace('ProtectClock', 'ProtectKlock'))
    const verified = analyze([
      'verify',
      '--man=no',
      '--recursive-errors=no',
      `--root=${made.root}`,
      UNIT,
    ])
    expect(String(verified.stderr)).toContain('ProtectKlock')
  })
})

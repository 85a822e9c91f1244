/**
 * A target in a network namespace of its own, as a container has, and one that a user made up. The agent is in another than
 * the tests are: an interface that comes or goes here is a change of network to a browser beside them.
 */
import { execFile } from 'node:child_process'
import { existsSync, realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import type { Seen } from '../programs/beside.ts'
import { refusalOf } from '../programs/kernel.ts'
import { sha256Of } from '../programs/process.ts'

const PYTHON = '/usr/bin/python3'
const UNSHARE = '/usr/bin/unshare'
const BESIDE = fileURLToPath(new URL('../programs/beside.ts', import.meta.url))
const ready =
  process.getuid?.() === 0 && ['/usr/sbin/ip', PYTHON, UNSHARE].every((file) => existsSync(file))

async function seen<Name extends keyof Seen>(name: Name): Promise<Seen[Name]> {
  const args = ['--net', process.execPath, BESIDE, name]
  const { stdout } = await promisify(execFile)(UNSHARE, args, { timeout: 120_000 })
  return JSON.parse(stdout) as Seen[Name]
}

describe.skipIf(!ready)(
  'another network namespace (needs root, iproute2, unshare, python3)',
  () => {
    test('its server is the owner; a connection that a user made up with the same ends is not', async () => {
      const { target, observed, recheck, forged } = await seen('server')
      const facts = { exe: realpathSync(PYTHON), sha256: sha256Of(PYTHON), pid: target }
      expect(observed).toMatchObject(facts)
      expect(recheck).toEqual({ state: 'same' })
      // Where the kernel makes no such namespace for a user, that is that.
      if (refusalOf(UNSHARE, ['-rn', 'true'], 64_002) !== undefined) return
      expect(forged).toEqual({ holders: [target], ended: 'closed' })
    })

    test('whoever binds its UDP port here, by any address or by its own, gets nothing of it and is not told', async () => {
      const { target, observed, recheck, glance, exposed, ended } = await seen('datagrams')
      expect(observed).toMatchObject({ pid: target, uid: 0, others: [] })
      expect(recheck).toEqual({ state: 'same' })
      // What the table here says in an instant is about this namespace.
      expect(glance).toBeNull()
      // Nor does who listens here listen there.
      expect(exposed).toEqual([null, null])
      // It ends: nobody, and not who is bound here.
      expect(ended).toEqual({ ok: false, why: 'elsewhere' })
    })
  },
)

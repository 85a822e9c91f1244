/** An act on the CA ends by kill -9 at any step: the next start says so, and goes on. */
import { spawnSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { activateDue, rotate } from '../../../gateway/keys/acts.ts'
import { exportRoot } from '../../../gateway/keys/export.ts'
import { at, begun, copyOf, eachRow, here, inCa, start, state } from './place.ts'

eachRow()

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
    const before = act === 'init' ? undefined : await begun()
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
      if (!gone) await exportRoot(here.room, at('root.pem'), copyOf)
      expect(existsSync(inCa('root.key.pem'))).toBe(false)
      const key = createPrivateKey({ key: readFileSync(at('root.pem')), passphrase: copyOf.text })
      expect(new X509Certificate(readFileSync(inCa('root.crt'))).checkPrivateKey(key)).toBe(true)
    } else if (act !== 'init') {
      const waiting = state()?.issuers.some((each) => each.state === 'next')
      expect(waiting).toBe(step === 'state')
      await rotate(here.room, { now: true })
      expect(await activateDue(here.room)).toBe(true)
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

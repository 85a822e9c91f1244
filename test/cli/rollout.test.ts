/** `sallyport rollout keygen|sign|verify`: a key that stays where it was made, and an agent that was run before it is signed. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { run } from './run.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-rollout-cli-'))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)
const rollout = async (...args: string[]) => run(folder, '--json', 'rollout', ...args)
const json = (text: string) => JSON.parse(text) as Record<string, string>
const agent = (name: string, source: string) => {
  writeFileSync(at(name), source)
  return at(name)
}

test('an agent is signed as the version that it says it is, and verified', async () => {
  writeFileSync(at('passphrase'), 'long enough to be one\n', { mode: 0o600 })
  const sealed = ['--passphrase-file', at('passphrase')]
  const made = await rollout('keygen', '--out', at('key'), ...sealed)
  expect(made).toMatchObject({ code: 0, err: '' })
  expect(statSync(at('key')).mode & 0o777).toBe(0o600)
  expect(readFileSync(at('key'), 'utf8')).toContain('ENCRYPTED')
  const word = json(made.out)['public_key']!
  expect(word).toMatch(/^ed25519:[\w-]{43}$/)
  expect((await rollout('keygen', '--out', at('key'), ...sealed)).code).toBe(2)

  const good = agent('agent.cjs', `console.log(process.argv[2] === '--version' ? '0.2.0' : '')`)
  const signing = ['--key', at('key'), '--out', at('update'), ...sealed]
  const signed = await rollout('sign', good, ...signing, '--for', '7d', '--from', '0.1.0')
  expect(signed).toMatchObject({ code: 0, err: '' })
  expect(json(signed.out)).toMatchObject({
    version: '0.2.0',
    from: '0.1.0',
    size: readFileSync(good).length,
  })

  const verified = await rollout('verify', at('update'), '--key', word, '--bundle', good)
  expect(verified).toMatchObject({ code: 0, err: '' })
  const another = agent('another.cjs', `console.log('0.2.0')`)
  const swapped = await rollout('verify', at('update'), '--key', word, '--bundle', another)
  expect([swapped.code, swapped.err]).toEqual([
    1,
    expect.stringContaining('update.bundle') as string,
  ])
  const stranger = json((await rollout('keygen', '--out', at('other'), '--unsealed')).out)[
    'public_key'
  ]!
  const foreign = await rollout('verify', at('update'), '--key', stranger)
  expect([foreign.code, foreign.err]).toEqual([
    1,
    expect.stringContaining('update.signature') as string,
  ])
})

test.for([
  ['does not start', `throw new Error('broken')`, 'does not run'],
  ['says no version', `console.log('soon')`, 'says no version'],
  ['is as old as those it is for', `console.log('0.1.0')`, 'as new as itself'],
] as const)('an agent that %s is not signed', async ([name, source, says]) => {
  await rollout('keygen', '--out', at('plain'), '--unsealed')
  const file = agent(`${name}.cjs`, source)
  const out = at(`${name}.update`)
  const ended = await rollout('sign', file, '--key', at('plain'), '--out', out, '--from', '0.1.0')
  expect([ended.code, ended.err]).toEqual([2, expect.stringContaining(says) as string])
  expect(() => readFileSync(out)).toThrow('ENOENT')
})

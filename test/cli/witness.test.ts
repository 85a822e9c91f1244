/** The command line as a witness, before a gateway that does not show its log. */
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateKeyPairSync } from 'node:crypto'
import { expect, onTestFinished, test, vi } from 'vitest'
import type { Api } from '../../cli/client.ts'
import { CliError } from '../../cli/exit.ts'
import { witnessDirectory } from '../../cli/profile.ts'
import { look, openKeeper, witnessing } from '../../cli/witness.ts'
import { signCheckpoint } from '../../audit/checkpoint.ts'
import { noteSigner } from '../../audit/note.ts'
import { leafHash, rootOf } from '../../audit/tree.ts'
import { run } from './run.ts'

const failing = {
  call: (_schema: unknown, _method: string, path: string) =>
    path.startsWith('/audit/head')
      ? Promise.reject(new CliError('it failed', { code: 'internal', exit: 'failed' }))
      : Promise.resolve({}),
} as unknown as Api

test.for([
  ['a head held and last shown two hours ago', 120, true],
  ['a head held and shown half an hour ago', 30, false],
  ['no head', undefined, false],
] as const)('with %s, one that answers 500 is told as it should be', async ([, minutes, told]) => {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-witness-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  if (minutes !== undefined) {
    mkdirSync(join(directory, 'witness'))
    const file = join(directory, 'witness', `${'0'.repeat(16)}.json`)
    writeFileSync(file, '{}')
    const at = Date.now() / 1000 - minutes * 60
    utimesSync(file, at, at)
  }
  let said = ''
  const stderr = vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said += String(text)
    return true
  })
  onTestFinished(() => stderr.mockRestore())
  await witnessing(failing, directory).call({} as never, 'GET', '/sessions')
  expect(said.includes('has not shown its log for 120 minutes')).toBe(told)
})

/** A gateway that has no such route. */
const hiding = {
  call: () => Promise.reject(new CliError('none', { code: 'route.unknown', exit: 'failed' })),
} as unknown as Api

/** A gateway whose log is of this name; it hears what is held against it. */
function showing(
  origin: string,
  more: object = {},
): { readonly api: Api; readonly heard: string[] } {
  const signer = noteSigner(origin, generateKeyPairSync('ed25519').privateKey)
  const head = { origin, size: 1, root: rootOf([leafHash(Buffer.from(origin))]) }
  const { note } = signCheckpoint(head, [signer], 0)
  const heard: string[] = []
  const call = (_schema: unknown, method: string, path: string, body?: { note: string }) => {
    if (method === 'GET') {
      const from = Number(new URL(path, 'https://gateway.test').searchParams.get('from'))
      return Promise.resolve({
        origin,
        keys: [signer.verifier.vkey],
        note,
        from,
        proof: [],
        ...more,
      })
    }
    heard.push(body?.note ?? '')
    return Promise.resolve({ recorded: true })
  }
  return { api: { call } as unknown as Api, heard }
}

test('a log of a new name ends a command until it is accepted, and the gateway is told', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-witness-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const keeper = await openKeeper(directory)
  const [first, other] = [showing('plant.test/audit/gw1/1'), showing('plant.test/audit/gw1/2')]
  expect(await look(first.api, keeper)).toEqual({ kind: 'first' })
  await expect(look(other.api, keeper)).rejects.toMatchObject({
    code: 'log.conflict',
    exit: 'failed',
    message: 'ALARM: the gateway shows another log than before',
    next: expect.stringContaining('witness accept --origin plant.test/audit/gw1/2') as string,
  })
  expect(other.heard).toEqual([keeper.held('plant.test/audit/gw1/1')?.note])
  const flags = ['--origin', 'plant.test/audit/gw1/2', '--data', directory]
  expect(await run(directory, 'audit', 'witness', 'accept', ...flags)).toMatchObject({ code: 0 })
  expect(await look(other.api, keeper)).toEqual({ kind: 'first' })
  expect(await look(first.api, keeper)).toEqual({ kind: 'same' })
})

const [one, two] = ['plant.test/audit/gw1/1', 'plant.test/audit/gw1/2'] as const
const nowhere = { note: 'none', from: 0, proof: [], closing: '', opening: '' }
const handovers = [{ ...nowhere, closing_path: [], opening_path: [] }]

/** What a gateway shows that had shown `held`: another epoch, or nothing; and what the person then may let go of. */
test.for([
  ['a rotation that is not proven', one, () => showing(two, { handovers }).api, 'head.unproven'],
  ['an epoch gone by', two, () => showing(one).api, 'head.rollback'],
  ['no log', one, () => hiding, 'head.hidden'],
] as const)('the command that an alarm over %s names does what it says', async (row) => {
  const [, held, api, code] = row
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-witness-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const keeper = await openKeeper(directory)
  expect(await look(showing(held).api, keeper)).toEqual({ kind: 'first' })
  const then = api()
  const alarm: unknown = await look(then, keeper).catch((error: unknown) => error)
  expect(alarm).toMatchObject({
    code: 'log.conflict',
    why: expect.stringContaining(code) as string,
  })
  const [, named = ''] =
    /sallyport (audit witness forget .*)$/.exec((alarm as CliError).next ?? '') ?? []
  expect(await run(directory, ...named.split(' '), '--data', directory)).toMatchObject({ code: 0 })
  expect(await look(then, keeper)).toEqual(code === 'head.hidden' ? null : { kind: 'first' })
})

test('services of two gateways keep their heads apart from each other, and from who is signed in', () => {
  onTestFinished(() => void vi.unstubAllEnvs())
  const places = () =>
    ['https://a.example', 'https://b.example:8443'].map((gateway) =>
      witnessDirectory('default', new URL(gateway)),
    )
  vi.stubEnv('SALLYPORT_SERVICE', '')
  const [own, again] = places()
  expect(own).toBe(again)
  vi.stubEnv('SALLYPORT_SERVICE', 'robot.json')
  expect(new Set([own, ...places()]).size).toBe(3)
})

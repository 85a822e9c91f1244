/** The command line as a witness, before a gateway that does not show its log. */
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import type { Api } from '../../cli/client.ts'
import { CliError } from '../../cli/exit.ts'
import { witnessing } from '../../cli/witness.ts'

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

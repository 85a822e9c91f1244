/** A command whose output nobody reads any more, as behind `| head`. */
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

test.for([
  ['bin.mjs', 'policy'],
  ['device.ts', 'enroll'],
])('it stops, says nothing more, and is no success: %s', ([command = '', word = '']) => {
  const file = fileURLToPath(new URL(`../../cli/${command}`, import.meta.url))
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-reader-'))
  try {
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
    const out = openSync(pipe, constants.O_WRONLY)
    closeSync(reader)
    const ran = spawnSync(process.execPath, [file, word, '--help'], {
      stdio: ['ignore', out, 'pipe'],
      encoding: 'utf8',
    })
    closeSync(out)
    expect([ran.status, ran.signal, ran.stderr]).toEqual([1, null, ''])
  } finally {
    rmSync(folder, { recursive: true })
  }
})

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { openLog, verifyLog, formatVkey } from '#audit'
import { keys, logOptions, origin, temporary } from './fixture.ts'

const child = new URL('./crash-child.ts', import.meta.url).pathname

/** Runs the writer until `count` lines have come, kills it, and gives every whole line it managed to say. */
async function runAndKill(directory: string, count: number): Promise<string[]> {
  const pem = keys.ed25519.export({ type: 'pkcs8', format: 'pem' }).toString()
  const own = spawn(
    process.execPath,
    [child, directory, origin, Buffer.from(pem).toString('base64')],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let said = ''
  let wrong = ''
  own.stderr.on('data', (chunk: Buffer) => (wrong += chunk.toString()))
  own.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString()
    if (said.split('\n').length > count) own.kill('SIGKILL')
  })
  const [, signal] = await once(own, 'close')
  expect(signal, wrong).toBe('SIGKILL')
  return said.split('\n').slice(0, -1)
}

test('killed ten times under 64 writers: every acknowledged event is there, no alarm is false', async () => {
  const directory = temporary()
  const acked: string[] = []
  for (let loop = 0; loop < 10; loop++)
    acked.push(...(await runAndKill(directory, 50 + loop * 171)))
  const signers = { ed25519: keys.ed25519 }
  const log = await openLog(logOptions(directory, { signers }))
  const kept = new Map((await log.read(0, log.size)).map((entry) => [entry.idx, entry]))
  // read gives what fits one answer; ask on until all is there.
  while (kept.size < log.size)
    for (const entry of await log.read(kept.size, log.size)) kept.set(entry.idx, entry)
  await log.close()
  expect(acked.length).toBeGreaterThan(5_000)
  const lost = acked.filter((line) => {
    const [idx, uid, leaf] = line.split(' ')
    const entry = kept.get(Number(idx))
    return entry?.uid !== uid || entry?.leaf !== leaf
  })
  expect(lost).toEqual([])
  const verdict = await verifyLog({ directory, verifierKeys: [formatVkey(origin, keys.ed25519)] })
  expect(verdict).toMatchObject({ outcome: 'proven', uncovered: 0 })
})

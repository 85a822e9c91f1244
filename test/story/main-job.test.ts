/** The main job, end to end, as `npm run demo -- --check` plays it. */
import { spawn } from 'node:child_process'
import { resolve } from 'node:path'
import { expect, test } from 'vitest'

const MINUTES = 60_000

test(
  'a vendor gets one process on one device for two minutes, and nothing else',
  { timeout: 5 * MINUTES },
  async () => {
    const main = resolve(import.meta.dirname, '../demo/main.ts')
    const child = spawn(process.execPath, [main, '--check'], { stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (out += text))
    const { promise, resolve: ended } = Promise.withResolvers<number | null>()
    child.on('close', ended)
    expect(await promise, out).toBe(0)
    const rows = [...out.matchAll(/^ {3}(\d) {2}.+ (passed|FAILED) +[\d.]+ s$/gm)].map(
      ([, step, result]) => [step, result],
    )
    expect(rows).toEqual(Array.from({ length: 9 }, (_, at) => [String(at + 1), 'passed']))
  },
)

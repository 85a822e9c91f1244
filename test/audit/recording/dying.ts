/** A program that records until it is killed: `dying.ts DIRECTORY RECIPIENT…`; one line of stdout for each logged part. */
import { randomBytes } from 'node:crypto'
import { writeSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { Recorder } from '../../../audit/recorder.ts'
import { parseRecipient } from '../../../audit/recording/keys.ts'
import { factsOf } from './facts.ts'

const [directory = '', ...recipients] = process.argv.slice(2)
let idx = 0
const recorder = await Recorder.open({
  directory,
  facts: { ...factsOf(), recipients },
  recipients: recipients.map(parseRecipient),
  budget: 1e12,
  limits: { partBytes: 200_000 },
  clock: { now: () => Date.now() },
  random: (bytes) => randomBytes(bytes),
  logged: async (part) => {
    writeSync(1, `${JSON.stringify({ ...part, idx })}\n`)
    return idx++
  },
  failed: (error) => {
    throw error
  },
})
const track = recorder.track(Buffer.from('begin\n'))
for (let line = 0; ; line++) {
  track.write(Buffer.from(`${line} ${'x'.repeat(line % 3_000)}\n`))
  if (line % 64 === 0) await setTimeout(1)
}

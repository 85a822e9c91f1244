/** Appends from 64 callers until it is killed; says on standard output what was acknowledged. */
import { createPrivateKey, randomBytes } from 'node:crypto'
import { writeSync } from 'node:fs'
import { openLog } from '#audit'

/** Says it before anything else happens; a full pipe is asked again. */
function say(text: string): void {
  const bytes = Buffer.from(text)
  let done = 0
  while (done < bytes.length)
    try {
      done += writeSync(1, bytes, done)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    }
}

const [directory = '', origin = '', pem = ''] = process.argv.slice(2)
const log = await openLog({
  directory,
  origin,
  signers: { ed25519: createPrivateKey(Buffer.from(pem, 'base64').toString()) },
  clock: { now: () => Date.now() },
  random: (n) => randomBytes(n),
  limits: { checkpointMs: 20, checkpointLeaves: 100, segmentBytes: 300_000 },
})
await Promise.all(
  Array.from({ length: 64 }, async (_, caller) => {
    for (let n = 0; ; n++) {
      const { idx, uid, leaf } = await log.append({
        code: 'session.stats',
        message: `caller ${caller} event ${n}`,
        status: 'success',
        session: `s_${caller}`,
        data: { bytes_in: n, bytes_out: n, duration_ms: 1 },
      })
      say(`${idx} ${uid} ${leaf}\n`)
    }
  }),
)

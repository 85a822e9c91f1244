/** One of two processes that redeem one token: `node redis-racer.ts PORT PREFIX TOKEN SIDE COUNT`, goes at a line on stdin. */
import { instant, type Intention } from '#ca'
import { RedisCaStore } from '../../../gateway/store/redis/ca.ts'

const [port = '', prefix = '', tokenId = '', side = '', count = ''] = process.argv.slice(2)
const NOON = Date.UTC(2026, 2, 1, 12)
await using store = await RedisCaStore.open({ host: '127.0.0.1', port: Number(port) }, prefix)

const wanted = Array.from({ length: Number(count) }, (_, at): Intention => {
  const serial = `4${side}${String(at).padStart(6, '0')}`.padEnd(32, '0')
  return {
    serial,
    tenant: 'main.sallyport.internal',
    profile: 'device',
    subject: 'press-07',
    issuer: 'aa'.repeat(20),
    spkiSha256: serial.padEnd(64, '0'),
    notBefore: instant(NOON),
    notAfter: instant(NOON + 72 * 3_600_000),
    tbs: Uint8Array.of(0x30, 0),
    recallKey: null,
    recallUntil: instant(NOON),
    parent: null,
    tokenId,
    decisionId: null,
    requestId: null,
    recordedAt: instant(NOON),
  }
})
process.stdout.write('ready\n')
await new Promise((resolve) => process.stdin.once('data', resolve))
const outcomes = await Promise.all(wanted.map((each) => store.record(each)))
process.stdout.write(`${JSON.stringify(outcomes.map((each) => each.outcome))}\n`)
process.stdin.destroy()

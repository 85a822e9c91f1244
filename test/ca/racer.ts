/**
 * One of two processes that reach for the same: `node racer.ts SIDE WORK PLACE…`, goes at a line on
 * stdin. WORK is JSON (race.ts); PLACE is `sqlite PATH` or `redis PORT PREFIX`.
 */
import { instant, type Intention } from '#ca'
import { RedisCaStore } from '../../gateway/store/redis/ca.ts'
import { RedisConnection } from '../../gateway/store/redis/connection.ts'
import { SqliteCaStore } from '../../gateway/store/sqlite/ca.ts'
import { SqliteThread } from '../../gateway/store/sqlite/thread.ts'
import type { Raced, Work } from './race.ts'

const TENANT = 'main.sallyport.internal'
const NOON = Date.UTC(2026, 2, 1, 12)
const [side = '', text = '', kind = '', where = '', prefix = ''] = process.argv.slice(2)
const work = JSON.parse(text) as Work

await using stack = new AsyncDisposableStack()
const store =
  kind === 'sqlite'
    ? new SqliteCaStore(stack.use(await SqliteThread.open(where)))
    : new RedisCaStore(
        stack.use(await RedisConnection.open({ host: '127.0.0.1', port: Number(where) }, prefix)),
      )

const all = Array.from({ length: work.count }, (_, at) => at)
const wanted = all.map((at): Intention => {
  const serial = `4${side}${String(at).padStart(6, '0')}`.padEnd(32, '0')
  return {
    serial,
    tenant: TENANT,
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
    tokenId: work.token,
    decisionId: null,
    requestId: null,
    recordedAt: instant(NOON),
  }
})
process.stdout.write('ready\n')
await new Promise((resolve) => process.stdin.once('data', resolve))
const [outcomes, numbers, redeemed] = await Promise.all([
  Promise.all(wanted.map((each) => store.record(each))),
  Promise.all(all.map(() => store.nextCrl(TENANT, 'aa'.repeat(20), instant(NOON)))),
  store.redeemRevocation(TENANT, work.revocation).then(
    () => true,
    () => false,
  ),
])
const told: Raced = {
  outcomes: outcomes.map(({ outcome }) => outcome),
  numbers: numbers.map(({ number }) => number),
  redeemed,
}
process.stdout.write(`${JSON.stringify(told)}\n`)
process.stdin.destroy()

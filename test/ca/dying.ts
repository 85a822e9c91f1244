/**
 * One enrolment in a process that ends by kill -9 at the point it is told: `node dying.ts FOLDER POINT`.
 * FOLDER has house.json, request.json and store.sqlite; events.ndjson is the log.
 */
import { createPrivateKey } from 'node:crypto'
import { appendFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { instant, openIssuers, softwareSigner, type CaStore, type Signer } from '#ca'
import { Bench, enrolling, type House } from './support.ts'

const [folder = '', deadly = ''] = process.argv.slice(2)
const read = (name: string) =>
  JSON.parse(readFileSync(join(folder, name), 'utf8')) as Record<string, string>
const bytes = (text = '') => Uint8Array.fromBase64(text)

/** Here the process may end. */
function point(name: string): void {
  if (name === deadly) process.kill(process.pid, 'SIGKILL')
}
async function around<T>(name: string, work: () => Promise<T>): Promise<T> {
  point(`before ${name}`)
  const value = await work()
  point(`after ${name}`)
  return value
}

const { root, issuing, key = '' } = read('house.json')
const own = softwareSigner(createPrivateKey(key))
const signer: Signer = {
  ...own,
  sign: async (tbs) => await around('sign', async () => await own.sign(tbs)),
}
const authority = { root: bytes(root), issuing: bytes(issuing) }
const active = { certificate: authority.issuing, signer }
const issuers = openIssuers({ roots: [authority.root], active })
await using bench = await Bench.open(join(folder, 'store.sqlite'), {
  authority,
  issuers,
} as unknown as House)

const { csr, token = '', now } = read('request.json')
bench.now = instant(Number(now))
const store = new Proxy(bench.store, {
  get(target, name) {
    const value: unknown = Reflect.get(target, name)
    if (typeof value !== 'function') return value
    const method = value.bind(target) as (...args: unknown[]) => Promise<unknown>
    if (name !== 'record' && name !== 'complete') return method
    return async (...args: unknown[]) => await around(name, async () => await method(...args))
  },
}) as CaStore
const serve = bench.server({
  store,
  log: async (event) =>
    await around('log', async () => {
      appendFileSync(join(folder, 'events.ndjson'), `${JSON.stringify(event)}\n`)
      await Promise.resolve()
    }),
})
const answer = await around('answer', async () => await serve(enrolling(bytes(csr), token)))
process.stdout.write(`${answer.status}\n`)

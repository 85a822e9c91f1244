/** Lists and OCSP answers while what they stand on is away: anybody may ask, and asking costs nothing that stays. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Publication } from '../../../gateway/listen/revocation.ts'
import { openssl } from '../../ca/openssl.ts'
import { Bench, newKey, pem, TENANT } from '../../ca/support.ts'

test('the log is full: questions by OCSP leave one intention however many come, and are answered once there is room', async () => {
  await using bench = await Bench.open()
  using ssl = openssl()
  const leaf = ssl.file('leaf.pem', pem(await bench.enrolled(newKey())))
  const issuer = ssl.file('issuer.pem', pem(bench.house.authority.issuing))
  const question = join(ssl.folder, 'question.der')
  ssl.run('ocsp', '-issuer', issuer, '-cert', leaf, '-no_nonce', '-reqout', question)
  const reported: unknown[] = []
  const { store, log } = bench.options()
  await using publication = await Publication.open({
    tenant: TENANT,
    gateway: 'gw1',
    issuers: () => bench.house.issuers,
    store: bench.store,
    log,
    cut: async () => undefined,
    now: () => bench.now,
    report: (error) => reported.push(error),
  })
  const server = createServer(publication.handle).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  /** The status of the answer (RFC 6960 4.2.1): 0 successful, 3 tryLater. */
  const ask = async (): Promise<number | undefined> => {
    const answer = await fetch(`http://127.0.0.1:${port}/ocsp`, {
      method: 'POST',
      headers: { 'content-type': 'application/ocsp-request' },
      body: readFileSync(question),
    })
    const der = new Uint8Array(await answer.arrayBuffer())
    return der.length === 5 ? der[4] : 0
  }
  const intentions = async () => (await store.listCertificates(TENANT, { profile: 'ocsp' })).length
  bench.logFails = true
  expect(await Promise.all(Array.from({ length: 5 }, ask))).toEqual([3, 3, 3, 3, 3])
  expect([await ask(), await ask()]).toEqual([3, 3])
  expect(await intentions()).toBe(1)
  bench.logFails = false
  expect(await ask()).toBe(3)
  bench.now += 10_000
  expect([await ask(), await ask()]).toEqual([0, 0])
  expect(await intentions()).toBe(2)
  expect(reported.length).toBeGreaterThan(0)
})

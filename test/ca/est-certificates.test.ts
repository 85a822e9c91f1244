/** What EST issues, by number of the list: versions, serials, dates, names, ends; and what supersedes what. */
import { X509Certificate } from 'node:crypto'
import { expect, test } from 'vitest'
import { instant } from '#ca'
import { createCsr, createRenewalCsr } from '#est'
import { readCertificate } from '../../ca/der/certificate.ts'
import { readName } from '../../ca/der/name.ts'
import { OID } from '../../ca/der/oid.ts'
import { named, request, subject } from './requests.ts'
import {
  Bench,
  DAY,
  enrolling,
  HOUR,
  leafOf,
  newKey,
  posting,
  renewing,
  TENANT,
} from './support.ts'

const names = { deviceId: 'press-07', tenant: TENANT }
const codeOf = ({ status, body }: { status: number; body: string }) => [
  status,
  body.split(':', 1)[0],
]
const find = (der: Uint8Array, oid: string) =>
  readCertificate(der).extensions.find((each) => each.oid === oid)

test('2.25 once the new one connects the old is superseded; who renews the old is a clone: 403 and an event', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const leaf = await bench.enrolled(key)
  const { serial } = readCertificate(leaf)
  await bench.store.proven(serial, instant(bench.now))
  bench.now += 48 * HOUR
  const serve = bench.server()
  const [next, unused] = [newKey(), newKey()]
  const renewed = leafOf(await serve(renewing(createRenewalCsr(next, leaf), leaf)))
  const spare = leafOf(await serve(renewing(createRenewalCsr(unused, leaf), leaf)))
  // Until the new one has connected, the old one still renews.
  expect((await serve(renewing(createRenewalCsr(next, leaf), leaf))).status).toBe(200)
  const ended = await bench.store.proven(readCertificate(renewed).serial, instant(bench.now))
  expect(ended.toSorted()).toEqual([serial, readCertificate(spare).serial].toSorted())
  const clone = await serve(renewing(createRenewalCsr(newKey(), leaf), leaf))
  expect(codeOf(clone)).toEqual([403, 'peer.superseded'])
  expect(bench.events.at(-1)).toMatchObject({
    code: 'cert.renew',
    outcome: 'refused',
    reason: 'peer.superseded',
    device: 'press-07',
    serial,
  })
  const other = await serve(renewing(createRenewalCsr(unused, spare), spare))
  expect(codeOf(other)).toEqual([403, 'peer.revoked'])
})

test('2.31 serverkeygen is off: 404 for any method and body, before anything is read', async () => {
  await using bench = await Bench.open()
  const before = await bench.state()
  for (const method of ['GET', 'POST']) {
    const answer = await bench.server()({ ...posting('serverkeygen', 'garbage'), method })
    expect(codeOf(answer)).toEqual([404, 'operation.off'])
  }
  expect(await bench.state()).toEqual(before)
})

test('2.32 version 3; serial of 16 octets with top bits 01; dates in whole seconds; critical key usage, no constraints', async () => {
  await using bench = await Bench.open()
  const serials = new Set<string>()
  for (let n = 0; n < 20; n++) {
    bench.devices.set(`d-${n}`, { id: `d-${n}`, zone: 'z', state: 'pending' })
    const leaf = await bench.enrolled(newKey(), `d-${n}`)
    const { serial } = readCertificate(leaf)
    expect(serial).toMatch(/^[4-7][0-9a-f]{31}$/)
    serials.add(serial)
    expect(find(leaf, OID.keyUsage)?.critical).toBe(true)
    expect(find(leaf, OID.basicConstraints)).toBeUndefined()
  }
  expect(serials.size).toBe(20)
  const { root, issuing } = bench.house.authority
  for (const der of [root, issuing]) expect(find(der, OID.basicConstraints)?.critical).toBe(true)
})

test('2.33 serialNumber is a PrintableString, the common name at most 64; what an X.509 name cannot hold is refused', async () => {
  await using bench = await Bench.open()
  const record = {
    id: 'press-07',
    zone: 'hall-a',
    state: 'pending',
    serialNumber: 'SN 47/11',
  } as const
  bench.devices.set('press-07', record)
  const leaf = await bench.enrolled(newKey())
  const [common, serial] = readName(readCertificate(leaf).subject).flat()
  expect([common?.text, serial?.text, serial?.tag]).toEqual(['press-07', 'SN 47/11', 0x13])
  const csr = request({ subject: named('x'.repeat(65)) })
  const answer = await bench.server()(enrolling(csr, await bench.token()))
  expect(codeOf(answer)).toEqual([400, 'name.subject'])
  bench.devices.set('press-07', { ...record, serialNumber: 'Nº 1' })
  const wrong = await bench.server()(
    enrolling(request({ subject: subject() }), await bench.token()),
  )
  expect(wrong.status).toBe(500)
})

test('2.34 it ends within its issuer; up to 24 hours it says that no revocation is published', async () => {
  await using bench = await Bench.open()
  const { active } = bench.house.issuers
  bench.now = active.notAfter - 2 * DAY
  const token = await bench.token()
  const near = leafOf(await bench.server()(enrolling(createCsr(newKey(), names), token)))
  expect(readCertificate(near).notAfter).toBe(active.notAfter)
  expect(find(near, OID.noRevAvail)).toBeUndefined()
  bench.now = active.notAfter - DAY / 2
  const brief = leafOf(
    await bench.server()(enrolling(createCsr(newKey(), names), await bench.token())),
  )
  expect(find(brief, OID.noRevAvail)).toBeDefined()
  expect(new X509Certificate(brief).infoAccess).toBeUndefined()
})

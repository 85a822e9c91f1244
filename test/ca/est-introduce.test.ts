/** A first certificate on somebody's word: a maker's identity (802.1AR), a registration authority. */
import { X509Certificate } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  instant,
  isMakersClaim,
  newToken,
  openAnchors,
  rebindToken,
  verifyPeer,
  type EstOptions,
} from '#ca'
import { createCsr, createPlainCsr, createRenewalCsr } from '#est'
import { readCertificate } from '../../ca/der/certificate.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import { sequence, smallInteger } from '../../ca/der/writer.ts'
import { extension, make, named, newMaker, type Made, type Maker, type Party } from './maker.ts'
import { challenge, deviceSan, named as subjectOf, request } from './requests.ts'
import {
  Bench,
  DAY,
  enrolling,
  leafOf,
  newKey,
  NOON,
  posting,
  random,
  renewing,
  TENANT,
} from './support.ts'

let maker: Maker
let device: Party
beforeAll(() => {
  maker = newMaker()
  device = make({ names: named('ACME PLC', 'SN-0815'), by: maker.middle })
})

const names = { deviceId: 'press-07', tenant: TENANT }
const serials = new Map([['SN-0815', 'press-07']])
const manufacturers = (extra: Partial<EstOptions> = {}): Partial<EstOptions> => ({
  manufacturers: () => [
    {
      name: 'acme',
      anchors: openAnchors([maker.root.certificate]),
      claim: async (serial) => serials.get(serial),
    },
  ],
  ...extra,
})
const showing = (csr: Uint8Array, ...chain: Uint8Array[]) =>
  posting('simpleenroll', csr, { connection: { clientChain: chain } })
const codeOf = ({ status, body }: { status: number; body: string }) => [
  status,
  body.split(':', 1)[0],
]

test('2.9, 2.10 an IDevID under a maker known here, on its list, unclaimed: enrolled, and only over EST', async () => {
  await using bench = await Bench.open()
  const serve = bench.server(manufacturers())
  const key = newKey()
  const { certificate } = device
  const first = await serve(showing(createCsr(key, names), certificate, maker.middle.certificate))
  expect(new X509Certificate(leafOf(first)).subjectAltName).toContain('/device/press-07')
  expect(bench.asked.at(-1)?.facts.enroll).toMatchObject({
    token: { id: 'idevid:acme:SN-0815', zone: 'hall-a', uses_left: 1 },
    claimed_serial: 'SN-0815',
  })
  expect(bench.events.at(-2)).toMatchObject({
    code: 'device.enroll',
    tokenId: 'idevid:acme:SN-0815',
  })
  // The same key again: the same certificate; the maker's roots open no tunnel.
  expect(
    await serve(showing(createCsr(key, names), certificate, maker.middle.certificate)),
  ).toEqual(first)
  const terms = { tenant: TENANT, issuers: bench.house.issuers, store: bench.store }
  const peer = { ...terms, now: instant(NOON), purpose: 'tunnel' } as const
  expect(await verifyPeer([certificate], peer)).toMatchObject({ code: 'peer.issuer' })
  // Another key: somebody cloned it, or it was reset; an operator decides.
  const other = await serve(
    showing(createCsr(newKey(), names), certificate, maker.middle.certificate),
  )
  expect(codeOf(other)).toEqual([403, 'token.bound'])
  bench.now += 4 * DAY
  const late = await serve(showing(createCsr(key, names), certificate, maker.middle.certificate))
  expect(codeOf(late)).toEqual([403, 'device.claimed'])
})

test('an IDevID raced by twenty keys: one certificate', async () => {
  await using bench = await Bench.open()
  const serve = bench.server(manufacturers())
  const answers = await Promise.all(
    Array.from({ length: 20 }, () =>
      serve(showing(createCsr(newKey(), names), device.certificate, maker.middle.certificate)),
    ),
  )
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
  expect(await bench.store.listCertificates(TENANT)).toHaveLength(1)
})

test('2.9 without makers, a foreign certificate at simpleenroll is nobody: 401, a token is asked for', async () => {
  await using bench = await Bench.open()
  const answer = await bench.server()(showing(createCsr(newKey(), names), device.certificate))
  expect(codeOf(answer)).toEqual([401, 'credential'])
  expect(answer.headers['www-authenticate']).toContain('Basic')
})

/** Nobody judges them here, so they have to stop a chain. */
const limits = extension(OID.nameConstraints, true, sequence())
const foreign = extension('1.2.3.4', true, smallInteger(1))
const sha1 = sequence(oid('1.2.840.10045.4.1'))
const leaf = (change: Partial<Made>): Uint8Array[] => [
  make({ names: named('ACME PLC', 'SN-0815'), by: maker.middle, ...change }).certificate,
  maker.middle.certificate,
]
const under = (change: Partial<Made>): Uint8Array[] => {
  const middle = make({
    names: named('Acme plant 3'),
    by: maker.root,
    ca: { pathLength: 0 },
    ...change,
  })
  return [make({ names: named('ACME PLC', 'SN-0815'), by: middle }).certificate, middle.certificate]
}
function tooLong(): Uint8Array[] {
  const { root } = newMaker(0)
  const middle = make({ names: named('Acme plant 3'), by: root, ca: { pathLength: 0 } })
  const own = make({ names: named('ACME PLC', 'SN-0815'), by: middle })
  strict = root.certificate
  return [own.certificate, middle.certificate]
}
let strict: Uint8Array | undefined
const rows: readonly (readonly [string, () => Uint8Array[], string])[] = [
  ['no intermediate', () => [device.certificate], 'peer.issuer'],
  ['an intermediate signed by a stranger', () => under({ by: newMaker().root }), 'peer.issuer'],
  [
    'signed by a stranger in the maker’s name',
    () => leaf({ by: { ...maker.middle, key: newKey() } }),
    'peer.issuer',
  ],
  [
    'a leaf that plays CA',
    () => [
      make({ names: named('x', 'SN-0815'), by: device }).certificate,
      device.certificate,
      maker.middle.certificate,
    ],
    'peer.issuer',
  ],
  ['pathlen exceeded', tooLong, 'peer.ca'],
  ['an intermediate without keyCertSign', () => under({ usage: [0] }), 'peer.issuer'],
  ['an unknown critical extension', () => leaf({ extensions: [foreign] }), 'peer.extension'],
  ['an unknown critical extension above', () => under({ extensions: [foreign] }), 'peer.extension'],
  ['critical name constraints above', () => under({ extensions: [limits] }), 'peer.extension'],
  ['SHA-1', () => leaf({ algorithm: sha1 }), 'peer.issuer'],
  ['expired', () => leaf({ notAfter: NOON - 1_000 }), 'peer.expired'],
  ['not valid yet', () => leaf({ notBefore: NOON + 1_000 }), 'peer.early'],
  ['an expired intermediate', () => under({ notAfter: NOON - 1_000 }), 'peer.expired'],
  ['for servers', () => leaf({ purposes: [OID.serverAuth] }), 'peer.purpose'],
  ['not for signing', () => leaf({ usage: [2] }), 'peer.purpose'],
  ['no serialNumber', () => leaf({ names: named('ACME PLC') }), 'peer.name'],
  [
    'two serialNumbers',
    () => leaf({ names: [...named('x', 'SN-0815'), ...named('y', 'SN-0816')] }),
    'peer.name',
  ],
  ['a serial number nobody listed', () => leaf({ names: named('x', 'SN-9999') }), 'idevid.serial'],
  ['a CA certificate', () => leaf({ ca: { pathLength: null } }), 'peer.ca'],
]
test.for(rows)('2.9 an IDevID, $0: 403 $2, no state, no policy', async ([, chain, code]) => {
  await using bench = await Bench.open()
  const before = await bench.state()
  const presented = chain()
  const anchors = openAnchors([maker.root.certificate, ...(strict === undefined ? [] : [strict])])
  const claim = async (serial: string) => serials.get(serial)
  const serve = bench.server({ manufacturers: () => [{ name: 'acme', anchors, claim }] })
  const answer = await serve(showing(createCsr(newKey(), names), ...presented))
  expect(codeOf(answer)).toEqual([403, code])
  expect(bench.asked).toEqual([])
  expect(await bench.state()).toEqual(before)
})

test("the maker's key is not the device's; a device with a certificate is claimed; another's token row too", async () => {
  await using bench = await Bench.open()
  const serve = bench.server(manufacturers())
  const chain = [device.certificate, maker.middle.certificate]
  expect(codeOf(await serve(showing(createCsr(device.key, names), ...chain)))).toEqual([
    403,
    'key.bound',
  ])
  await bench.enrolled(newKey())
  expect(codeOf(await serve(showing(createCsr(newKey(), names), ...chain)))).toEqual([
    403,
    'device.claimed',
  ])
  // The row behind a claim is no password.
  const [row] = await bench.store.listTokens(TENANT)
  expect(row?.hash).toMatch(/^idevid:/)
  const guess = await serve(enrolling(createCsr(newKey(), names), 'idevid:acme:SN-0815'))
  expect(codeOf(guess)).toEqual([401, 'credential'])
  expect(() => openAnchors([device.certificate])).toThrow('not a CA')
})

describe('a claim of a maker', () => {
  const shown = (csr: Uint8Array) => showing(csr, device.certificate, maker.middle.certificate)
  const claim = async ({ store }: Bench) => {
    const rows = await store.listTokens(TENANT)
    return rows.find(isMakersClaim)!
  }
  const free = async (bench: Bench) => {
    const { store } = bench
    const end = async (serial: string) =>
      await store.revoke(TENANT, { serial }, 'superseded', instant(bench.now))
    const request = { lifetimeSeconds: 3_600, now: instant(bench.now) }
    return await rebindToken(await claim(bench), request, { store, end })
  }
  const introduced = async (bench: Bench) =>
    codeOf(await bench.server(manufacturers())(shown(createCsr(newKey(), names))))
  const OK = expect.arrayContaining([200]) as unknown

  test('that is freed waits for its device as long as the first time, not for an hour', async () => {
    await using bench = await Bench.open()
    expect(await introduced(bench)).toEqual(OK)
    expect(await introduced(bench)).toEqual([403, 'token.bound'])
    expect(await free(bench)).toBe(undefined)
    bench.now += 400 * DAY
    expect(await introduced(bench)).toEqual(OK)
  })

  test('that was revoked before its use bars the device, says so, and can be freed', async () => {
    await using bench = await Bench.open()
    // The first request made the row, and was refused: a maker's claim that nobody used.
    await bench.enrolled(newKey())
    expect(await introduced(bench)).toEqual([403, 'device.claimed'])
    const { store } = bench
    const [active] = await store.listCertificates(TENANT, { state: 'active' })
    await store.revoke(TENANT, { serial: active!.serial }, 'superseded', instant(bench.now))
    expect(await store.revokeToken(TENANT, (await claim(bench)).id, instant(bench.now))).toBe(true)
    const barred = await bench.server(manufacturers())(shown(createCsr(newKey(), names)))
    expect(barred.body).toContain('an operator ended what the maker vouches for')
    expect(barred.body).toContain('rebind-token')
    expect(await free(bench)).toBe(undefined)
    expect(await introduced(bench)).toEqual(OK)
  })

  test('that ended with its device is freed, also after the certificate was in use', async () => {
    await using bench = await Bench.open()
    expect(await introduced(bench)).toEqual(OK)
    const { store } = bench
    const [active] = await store.listCertificates(TENANT, { state: 'active' })
    await store.proven(active!.serial, instant(bench.now))
    expect(await free(bench)).toBe('in use')
    await store.revoke(TENANT, { device: 'press-07' }, 'superseded', instant(bench.now))
    expect(await introduced(bench)).toEqual([403, 'device.claimed'])
    expect(await free(bench)).toBe(undefined)
    expect(await introduced(bench)).toEqual(OK)
  })

  test('that nobody used needs no freeing', async () => {
    await using bench = await Bench.open()
    await bench.enrolled(newKey())
    expect(await introduced(bench)).toEqual([403, 'device.claimed'])
    expect(await free(bench)).toBe('unused')
  })
})

const labels = [
  { name: 'device', profile: 'device' },
  { name: 'ra', profile: 'ra' },
] as const

/** A registration authority with its certificate, enrolled at the label `ra`. */
async function authority(
  bench: Bench,
): Promise<{ key: ReturnType<typeof newKey>; leaf: Uint8Array }> {
  bench.devices.set('line-2', { id: 'line-2', zone: 'hall-a', state: 'active' })
  const made = { tenant: TENANT, device: 'line-2', profile: 'ra', lifetimeSeconds: 3_600 } as const
  const { text } = await newToken({ ...made, now: instant(bench.now), random }, bench.store)
  const key = newKey()
  const csr = createPlainCsr(key, { commonName: 'line-2', uris: [], dnsNames: [] })
  const at = { ...enrolling(csr, text), path: '/.well-known/est/ra/simpleenroll' }
  return { key, leaf: leafOf(await bench.server({ labels })(at)) }
}

test('2.13 an RA has cmcRA, lives a day, renews at its label, and enrols devices with a foreign binding', async () => {
  await using bench = await Bench.open()
  const ra = await authority(bench)
  const certificate = new X509Certificate(ra.leaf)
  expect(certificate.subjectAltName).toBe(`URI:sallyport://${TENANT}/ra/line-2`)
  expect(certificate.keyUsage).toEqual([OID.clientAuth, OID.cmcRa])
  const { notBefore, notAfter } = readCertificate(ra.leaf)
  expect(notAfter - notBefore).toBe(DAY - 1_000)
  const serve = bench.server({ labels, linking: 'required' })
  const csr = request({
    attributes: [deviceSan('press-07'), challenge('binding of another connection')],
  })
  const wired = { clientChain: [ra.leaf], channelBinding: new Uint8Array(32) }
  const enrolled = leafOf(await serve(posting('simpleenroll', csr, { connection: wired })))
  expect(new X509Certificate(enrolled).subjectAltName).toContain('/device/press-07')
  expect(bench.asked.at(-1)?.facts.enroll?.token).toMatchObject({ id: 'ra:line-2', zone: 'hall-a' })
  const bare = await serve(
    posting('simpleenroll', request({ attributes: [deviceSan('press-07')] }), {
      connection: wired,
    }),
  )
  expect(codeOf(bare)).toEqual([400, 'binding.required'])
  const renewal = {
    ...renewing(createRenewalCsr(newKey(), ra.leaf), ra.leaf),
    path: '/.well-known/est/ra/simplereenroll',
  }
  leafOf(await bench.server({ labels })(renewal))
})

test('2.13 what an RA may not: name nobody, enrol RAs, go on after its end or in quarantine, open a tunnel', async () => {
  await using bench = await Bench.open()
  const ra = await authority(bench)
  const serve = bench.server({ labels })
  const from = (csr: Uint8Array, path = 'simpleenroll') =>
    posting(path, csr, { connection: { clientChain: [ra.leaf] } })
  const good = () => request({ subject: subjectOf('press-07') })
  expect(codeOf(await serve(from(createPlainCsr(newKey(), { uris: [], dnsNames: [] }))))).toEqual([
    400,
    'name.subject',
  ])
  expect(codeOf(await serve(from(good(), 'ra/simpleenroll')))).toEqual([403, 'operation.swapped'])
  expect(codeOf(await bench.server()(from(good())))).toEqual([403, 'operation.swapped'])
  expect(codeOf(await serve(from(request({ subject: subjectOf('nobody') }))))).toEqual([
    403,
    'device.unknown',
  ])
  const terms = {
    tenant: TENANT,
    issuers: bench.house.issuers,
    store: bench.store,
    now: instant(NOON),
  }
  expect(await verifyPeer([ra.leaf], { ...terms, purpose: 'tunnel' })).toMatchObject({
    code: 'peer.name',
  })
  bench.devices.set('line-2', { id: 'line-2', zone: 'hall-a', state: 'quarantined' })
  expect(codeOf(await serve(from(good())))).toEqual([403, 'device.state'])
  bench.devices.set('line-2', { id: 'line-2', zone: 'hall-a', state: 'active' })
  bench.now += 2 * DAY
  expect(codeOf(await serve(from(good())))).toEqual([403, 'peer.expired'])
})

test('2.10 a device certificate enrols nothing; a token of one label is refused at another', async () => {
  await using bench = await Bench.open()
  const leafDer = await bench.enrolled(newKey())
  const serve = bench.server({ labels })
  expect(codeOf(await serve(showing(createCsr(newKey(), names), leafDer)))).toEqual([
    403,
    'operation.swapped',
  ])
  const token = await bench.token()
  const at = {
    ...enrolling(createCsr(newKey(), names), token),
    path: '/.well-known/est/ra/simpleenroll',
  }
  expect(codeOf(await serve(at))).toEqual([403, 'token.label'])
})

/** EST as values: what a right request gets, by number of the conformance list in the design. */
import { X509Certificate } from 'node:crypto'
import { expect, test } from 'vitest'
import { instant, type EstOptions } from '#ca'
import { createCsr, createRenewalCsr, encodeEstBody, parseCertsOnly } from '#est'
import { readCertificate } from '../../ca/der/certificate.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import { sequence, setOf } from '../../ca/der/writer.ts'
import { request, subject } from './requests.ts'
import {
  basic,
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
const get = (operation: string) => ({ ...posting(operation, ''), method: 'GET', headers: {} })

test('2.19 cacerts: root and issuing CA, open to all, with and without label', async () => {
  await using bench = await Bench.open()
  for (const path of ['cacerts', 'device/cacerts', 'cacerts?x=1']) {
    const answer = await bench.server()(get(path))
    expect(answer.status).toBe(200)
    expect(answer.headers['content-type']).toBe('application/pkcs7-mime')
    const { root, issuing } = bench.house.authority
    expect(parseCertsOnly(answer.body).map((each) => each.toHex())).toEqual([
      root.toHex(),
      issuing.toHex(),
    ])
  }
})

test('2.21 bodies are 64 columns, LF, exactly one final LF, with their length', async () => {
  await using bench = await Bench.open()
  const { body, headers } = await bench.server()(get('cacerts'))
  expect(body).toMatch(/^([A-Za-z0-9+/]{64}\n)+[A-Za-z0-9+/]{1,64}={0,2}\n$/)
  expect(headers).toMatchObject({
    'content-transfer-encoding': 'base64',
    'content-length': String(body.length),
  })
})

test('2.28, 2.18 csrattrs: key, curve and hash; challengePassword only where linking is required', async () => {
  await using bench = await Bench.open()
  const attributes = async (options: Partial<EstOptions>) => {
    const answer = await bench.server(options)(get('csrattrs'))
    expect(answer).toMatchObject({
      status: 200,
      headers: { 'content-type': 'application/csrattrs' },
    })
    return Buffer.from(answer.body, 'base64').toString('hex')
  }
  const key = sequence(oid(OID.ecPublicKey), setOf(oid(OID.p256)))
  const hash = oid(OID.ecdsaSha256)
  const hex = (der: Uint8Array) => Buffer.from(der).toString('hex')
  expect(await attributes({})).toBe(hex(sequence(key, hash)))
  expect(await attributes({ linking: 'required' })).toBe(
    hex(sequence(oid(OID.challengePassword), key, hash)),
  )
})

test('2.26 simpleenroll: the issued certificate alone, as decided, recorded and logged', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const answer = await bench.server()(enrolling(createCsr(key, names), await bench.token()))
  expect(answer.headers['content-type']).toBe('application/pkcs7-mime; smime-type=certs-only')
  const leaf = leafOf(answer)
  const certificate = new X509Certificate(leaf)
  expect(certificate.checkPrivateKey(key)).toBe(true)
  expect(certificate.subject).toBe('CN=press-07')
  expect(certificate.subjectAltName).toBe(`URI:sallyport://${TENANT}/device/press-07`)
  expect(bench.asked).toMatchObject([
    {
      point: 'device.enroll',
      facts: {
        request_id: 'req-1',
        device: { id: 'press-07', zone: 'hall-a' },
        enroll: {
          token: { zone: 'hall-a', uses_left: 1 },
          key: { alg: 'P-256', hardware: false },
          claimed_serial: null,
        },
        renew: null,
      },
    },
  ])
  expect(bench.events.map((event) => event.code)).toEqual(['device.enroll', 'cert.issue'])
  const { serial } = readCertificate(leaf)
  expect(bench.events[1]).toMatchObject({
    serial,
    subject: 'press-07',
    decisionId: 'd_allowed',
    resumed: false,
  })
  expect(bench.issued).toMatchObject([{ operation: 'enroll', device: 'press-07', serial }])
  const [row] = await bench.store.listCertificates(TENANT)
  expect(row).toMatchObject({
    state: 'active',
    serial,
    decisionId: 'd_allowed',
    requestId: 'req-1',
  })
})

const forms: readonly (readonly [string, (csr: Uint8Array) => string])[] = [
  ['one line', (csr) => csr.toBase64()],
  ['76 columns and CRLF', (csr) => csr.toBase64().replace(/.{76}/g, '$&\r\n')],
  ['white space everywhere', (csr) => ` ${csr.toBase64().replace(/.{3}/g, '$&\t')}\n\n`],
  [
    'PEM',
    (csr) =>
      `-----BEGIN CERTIFICATE REQUEST-----\n${encodeEstBody(csr)}-----END CERTIFICATE REQUEST-----\n`,
  ],
]
test.for(forms)('2.20 a body as $0 is read', async ([, form]) => {
  await using bench = await Bench.open()
  const body = form(createCsr(newKey(), names))
  const type = { 'content-type': 'Application/PKCS10; charset=x' }
  const headers = { ...type, authorization: basic(await bench.token()) }
  expect((await bench.server()(posting('device/simpleenroll', body, { headers }))).status).toBe(200)
})

test('2.22 a request that says nothing of names gets those of the record', async () => {
  await using bench = await Bench.open()
  bench.devices.set('press-07', {
    id: 'press-07',
    zone: 'hall-a',
    state: 'pending',
    serialNumber: 'SN 0815',
  })
  const csr = request({ subject: subject(), attributes: null })
  const leaf = leafOf(await bench.server()(enrolling(csr, await bench.token())))
  expect(new X509Certificate(leaf).subject).toBe('CN=press-07\nserialNumber=SN 0815')
  expect(bench.asked[0]?.facts.enroll?.claimed_serial).toBeNull()
})

test('a serial number that is on record may be claimed', async () => {
  await using bench = await Bench.open()
  bench.devices.set('press-07', {
    id: 'press-07',
    zone: 'hall-a',
    state: 'pending',
    serialNumber: 'S1',
  })
  const csr = createCsr(newKey(), { ...names, serialNumber: 'S1' })
  expect((await bench.server()(enrolling(csr, await bench.token()))).status).toBe(200)
  expect(bench.asked[0]?.facts.enroll?.claimed_serial).toBe('S1')
})

test('an obligation shortens the life, never lengthens it', async () => {
  await using bench = await Bench.open()
  const lives = [
    [{ lifetimeSeconds: 3_600 }, 3_600],
    [{ lifetimeSeconds: 10 * 86_400 }, 72 * 3_600],
    [{ notAfter: instant(bench.now + HOUR) }, 3_901],
  ] as const
  for (const [obligations, seconds] of lives) {
    bench.decision = { allow: true, denials: [], decision_id: 'd', obligations }
    const leaf = leafOf(
      await bench.server()(enrolling(createCsr(newKey(), names), await bench.token())),
    )
    const { notBefore, notAfter } = readCertificate(leaf)
    expect((notAfter - notBefore) / 1_000 + 1).toBe(seconds)
  }
  bench.decision = {
    allow: true,
    denials: [],
    decision_id: 'd',
    obligations: { lifetimeSeconds: 60 },
  }
  const answer = await bench.server()(enrolling(createCsr(newKey(), names), await bench.token()))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([503, 'issuer.expired'])
})

test('a life outside the profile is refused at start', async () => {
  await using bench = await Bench.open()
  expect(() => bench.server({ deviceLifetimeSeconds: 3_600 })).toThrow('lives 86400 to 604800')
  const leaf = leafOf(
    await bench.server({ deviceLifetimeSeconds: 86_400 })(
      enrolling(createCsr(newKey(), names), await bench.token()),
    ),
  )
  const { extensions } = readCertificate(leaf)
  expect(extensions.some((each) => each.oid === OID.noRevAvail)).toBe(true)
})

const binding = new Uint8Array(32).fill(7)
test('2.14, 2.16, 2.17 a matching binding is taken, in folded base64 too, and ends the connection', async () => {
  await using bench = await Bench.open()
  const folded = `${Buffer.from(binding).toString('base64').slice(0, 9)}\n ${Buffer.from(binding).toString('base64').slice(9)}`
  const csr = createCsr(newKey(), names, folded)
  const sent = enrolling(csr, await bench.token(), { channelBinding: binding })
  expect(await bench.server()(sent)).toMatchObject({ status: 200, close: true })
})

test('2.18 required linking: absent 400 binding.required, present 200', async () => {
  await using bench = await Bench.open()
  const serve = bench.server({ linking: 'required' })
  const token = await bench.token()
  const bare = await serve(
    enrolling(createCsr(newKey(), names), token, { channelBinding: binding }),
  )
  expect([bare.status, bare.body.split(':', 1)[0]]).toEqual([400, 'binding.required'])
  const csr = createCsr(newKey(), names, Buffer.from(binding).toString('base64'))
  expect((await serve(enrolling(csr, token, { channelBinding: binding }))).status).toBe(200)
})

test('2.16 a challenge where the connection has no binding: 400', async () => {
  await using bench = await Bench.open()
  const csr = createCsr(newKey(), names, Buffer.from(binding).toString('base64'))
  expect((await bench.server()(enrolling(csr, await bench.token()))).status).toBe(400)
})

test('the clock is behind what was issued: both dates are said and nothing is issued; once it is right all goes on', async () => {
  await using bench = await Bench.open()
  const made = bench.now
  bench.now += 2 * DAY
  const leaf = await bench.enrolled(newKey())
  const renew = () => bench.server()(renewing(createRenewalCsr(newKey(), leaf), leaf))
  const token = await bench.token()
  const rows = async () => (await bench.store.listCertificates(TENANT, {})).length
  const before = await rows()
  const day = (at: number) => new Date(at).toISOString().slice(0, 10)
  const dates = (begins: number) =>
    `begins at ${day(begins)}T[^ ]*, and this gateway believes it is ${day(bench.now)}T[^ ]*`
  bench.now -= DAY
  const early = await renew()
  expect([early.status, early.body]).toEqual([
    403,
    expect.stringMatching(
      new RegExp(
        `^peer\\.early: the client certificate ${dates(made + 2 * DAY)}: one of the two clocks is wrong; correct the clocks`,
      ),
    ),
  ])
  bench.now = instant(made - 2 * DAY)
  const answer = await bench.server()(enrolling(createCsr(newKey(), names), token))
  expect([answer.status, answer.body]).toEqual([
    503,
    expect.stringMatching(
      new RegExp(`^issuer\\.expired: the issuing CA ${dates(made)}: set its clock;`),
    ),
  ])
  expect(await rows()).toBe(before)
  bench.now = instant(made + 2 * DAY)
  expect((await renew()).status).toBe(200)
})

/** Labels and csrattrs: what is served where, and what a client is told to send. */
import { expect, test } from 'vitest'
import { createCsr, parseCertsOnly, readCsrAttributes } from '#est'
import { readDer } from '../../ca/der/reader.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import { context, sequence, setOf, smallInteger } from '../../ca/der/writer.ts'
import { named, request } from './requests.ts'
import { basic, Bench, leafOf, newKey, posting, renewing, TENANT } from './support.ts'

const labels = [
  { name: 'device', profile: 'device' },
  { name: 'swan', profile: 'device', wrap: 'none', names: 'ignore', san: 'copy' },
  { name: 'linked', profile: 'device', linking: 'required', csrattrs: 'template' },
  { name: 'quiet', profile: 'device', csrattrs: 'none' },
] as const
const get = (path: string) => ({ ...posting(path, ''), method: 'GET', headers: {} })
const names = { deviceId: 'press-07', tenant: TENANT }

test('2.2 with or without label; an unknown one, a deeper path and an operation as label are 404', async () => {
  await using bench = await Bench.open()
  const serve = bench.server({ labels })
  for (const path of ['cacerts', 'device/cacerts', 'swan/cacerts', 'linked/csrattrs'])
    expect((await serve(get(path))).status).toBe(200)
  const rows = [
    ['toaster/cacerts', 'label.unknown'],
    ['cacerts/cacerts', 'label.unknown'],
    ['device/swan/cacerts', 'path.unknown'],
    ['device/', 'path.unknown'],
    ['', 'path.unknown'],
  ] as const
  for (const [path, code] of rows)
    expect([(await serve(get(path))).status, (await serve(get(path))).body.split(':')[0]]).toEqual([
      404,
      code,
    ])
  for (const name of ['cacerts', 'fullcmc', 'Device', 'a/b', ''])
    expect(() => bench.server({ labels: [{ name, profile: 'device' }] })).toThrow(
      'cannot be a label',
    )
  expect(() => bench.server({ labels: [labels[0], labels[0]] })).toThrow('two labels')
})

test('2.21 wrap none: one line without a line end, the same certificates', async () => {
  await using bench = await Bench.open()
  const serve = bench.server({ labels })
  const [wrapped, flat] = [await serve(get('cacerts')), await serve(get('swan/cacerts'))]
  expect(flat.body).toMatch(/^[A-Za-z0-9+/]+={0,2}$/)
  expect(flat.headers['content-length']).toBe(String(flat.body.length))
  expect(parseCertsOnly(flat.body)).toEqual(parseCertsOnly(wrapped.body))
})

test('2.22 names ignore: what a request says of names is dropped; strict: 400 that names the field', async () => {
  await using bench = await Bench.open()
  const serve = bench.server({ labels })
  const csr = request({ subject: named('my-own-name') })
  const authorization = basic(await bench.token())
  const strict = await serve(posting('simpleenroll', csr, { headers: { authorization } }))
  expect([strict.status, strict.body]).toEqual([400, expect.stringContaining('commonName')])
  const lax = await serve(posting('swan/simpleenroll', csr, { headers: { authorization } }))
  expect(bench.asked.at(-1)?.facts.enroll?.claimed_serial).toBeNull()
  expect(leafOf(lax)).toBeInstanceOf(Uint8Array)
})

test('2.23 a renewal without SAN: 400, or with san copy that of the certificate', async () => {
  await using bench = await Bench.open()
  const serve = bench.server({ labels })
  const key = newKey()
  const leaf = await bench.enrolled(key)
  const csr = request({ key, subject: named('press-07') })
  const strict = await serve(renewing(csr, leaf))
  expect([strict.status, strict.body.split(':')[0]]).toEqual([400, 'name.san'])
  const swan = { ...renewing(csr, leaf), path: '/.well-known/est/swan/simplereenroll' }
  expect((await serve(swan)).status).toBe(200)
  const other = request({ key, subject: named('press-08') })
  const swapped = { ...renewing(other, leaf), path: '/.well-known/est/swan/simplereenroll' }
  expect((await serve(swapped)).body).toMatch(/^name\.subject: /)
})

test('2.18 a label that requires linking says so in csrattrs and in its refusal', async () => {
  await using bench = await Bench.open()
  const serve = bench.server({ labels })
  const wishes = readCsrAttributes(await serve(get('linked/csrattrs')))
  expect(wishes).toMatchObject({ challengePassword: true, template: true })
  expect(readCsrAttributes(await serve(get('csrattrs')))?.challengePassword).toBe(false)
  const headers = { authorization: basic(await bench.token()) }
  const csr = createCsr(newKey(), names)
  const bare = await serve(posting('linked/simpleenroll', csr, { headers }))
  expect([bare.status, bare.body]).toEqual([
    400,
    expect.stringMatching(/^binding\.required: .*challengePassword/),
  ])
})

test('2.28 nothing to say: 204 without a body', async () => {
  await using bench = await Bench.open()
  const answer = await bench.server({ labels })(get('quiet/csrattrs'))
  expect(answer).toMatchObject({ status: 204, body: '', headers: {} })
  expect(readCsrAttributes(answer)).toBeUndefined()
})

/** The top of a CsrAttrs: identifiers as text, attributes by their type. */
async function attributesOf(label: string): Promise<{ types: string[]; der: Uint8Array }> {
  await using bench = await Bench.open()
  const answer = await bench.server({ labels })(get(`${label}/csrattrs`))
  const der = Uint8Array.fromBase64(answer.body.replaceAll('\n', ''))
  return { types: [...(readCsrAttributes(answer)?.all ?? [])], der }
}

test('2.29 no identifier twice, one Attribute for the key with its curve, at most one kind of extensions', async () => {
  for (const label of ['device', 'linked']) {
    const { types, der } = await attributesOf(label)
    expect(new Set(types).size).toBe(types.length)
    const attributes = readDer(der, { depth: 16, nodes: 512 }).children.filter(
      (each) => each.tag === 0x30,
    )
    const keys = attributes.filter((each) =>
      each.bytes.toHex().includes(oid(OID.ecPublicKey).toHex()),
    )
    expect(keys[0]?.bytes).toEqual(sequence(oid(OID.ecPublicKey), setOf(oid(OID.p256))))
    expect(types.filter((type) => type === OID.extensionRequest)).toEqual([])
  }
})

test('2.30 the template stands beside the list: version 0, names to fill in, no placeholder key, [1] there', async () => {
  const { types, der } = await attributesOf('linked')
  expect(types).toEqual([
    OID.challengePassword,
    OID.ecPublicKey,
    OID.ecdsaSha256,
    OID.requestTemplate,
  ])
  const last = readDer(der, { depth: 16, nodes: 512 }).children.at(-1)
  const template = last?.children[1]?.children[0]
  expect(template?.children.map((part) => part.tag)).toEqual([0x02, 0x30, 0xa0, 0xa1])
  const [version, subject, key, attributes] = template!.children
  expect(version?.bytes).toEqual(smallInteger(0))
  expect(subject?.bytes).toEqual(sequence(setOf(sequence(oid(OID.commonName)))))
  expect(key?.bytes).toEqual(context(0, sequence(oid(OID.ecPublicKey), oid(OID.p256))))
  const hex = attributes!.bytes.toHex()
  expect(hex).toContain(oid('1.2.840.113549.1.9.16.2.62').toHex())
  expect(hex).not.toContain(oid(OID.extensionRequest).toHex())
})

test('the example of RFC 9908 5.2 is read, and written again as it was', () => {
  const text = 'MDIGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiBgcrBgEBAQEWBggqhkjOPQQDAw=='
  const read = readCsrAttributes({ status: 200, headers: {}, body: text })
  expect(read).toEqual({
    challengePassword: true,
    key: { algorithm: OID.ecPublicKey, parameter: OID.p384 },
    template: false,
    all: [OID.challengePassword, OID.ecPublicKey, '1.3.6.1.1.1.1.22', OID.ecdsaSha384],
  })
  const key = sequence(oid(OID.ecPublicKey), setOf(oid(OID.p384)))
  const again = sequence(
    oid(OID.challengePassword),
    key,
    oid('1.3.6.1.1.1.1.22'),
    oid(OID.ecdsaSha384),
  )
  expect(again.toBase64()).toBe(text)
})

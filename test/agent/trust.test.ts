/** Which chains make a gateway, over real TLS: a certificate that starts tomorrow hides no other fault. */
import { createPublicKey, generateKeyPairSync, sign, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { describe, expect, test } from 'vitest'
import { pathTo } from '#est'
import { assertGateway } from '../../agent-tunnel/agent/trust.ts'
import { readCertificate } from '../../ca/der/certificate.ts'
import { writeGeneralNames, writeName } from '../../ca/der/name.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import {
  bitString,
  boolean,
  context,
  contextPrimitive,
  namedBits,
  octetString,
  sequence,
} from '../../ca/der/writer.ts'
import { extension, make, named, type Made, type Party } from '../ca/maker.ts'
import { DAY, newKey, pem } from '../ca/support.ts'

const ANY_PURPOSE = '2.5.29.37.0'
const UNKNOWN = '1.2.3.4.5'

const x509 = ({ certificate }: Pick<Party, 'certificate'>) => new X509Certificate(certificate)
const unknown = extension(UNKNOWN, false, octetString(Uint8Array.of(1)))
const unknownCritical = extension(UNKNOWN, true, octetString(Uint8Array.of(1)))
const localhost = new TextEncoder().encode('localhost')
const nameConstraints = extension(
  OID.nameConstraints,
  true,
  sequence(context(0, sequence(contextPrimitive(2, localhost)))),
)
// sslCA.
const netscapeTypes = extension('2.16.840.1.113730.1.1', false, namedBits(5))

type Change = Partial<Made>
/** What differs from root -> sub-CA (pathlen 0) -> server certificate of localhost. */
interface Recipe {
  readonly root?: Change
  /** A CA between root and sub-CA. */
  readonly between?: Change
  readonly sub?: Change
  readonly leaf?: Change
}

function chainOf(recipe: Recipe): { root: Party; leaf: Party; above: Party[] } {
  const ca = { pathLength: null }
  const root = make({ names: named('Root'), ca, ...recipe.root })
  const between =
    recipe.between && make({ names: named('Between'), ca, by: root, ...recipe.between })
  const by = between ?? root
  const sub = make({ names: named('Sub'), ca: { pathLength: 0 }, by, ...recipe.sub })
  const { extensions = [], ...change } = recipe.leaf ?? {}
  const san = writeGeneralNames([{ kind: 'dns', text: 'localhost' }])
  const leaf = make({
    names: named('gw1'),
    by: sub,
    purposes: [OID.serverAuth],
    notAfter: Date.now() + 30 * DAY,
    extensions: [extension(OID.subjectAltName, false, san), ...extensions],
    ...change,
  })
  return { root, leaf, above: between === undefined ? [sub] : [sub, between] }
}

/** The client's end of a handshake with a server that presents `chain`, judged as the agent does. */
async function judged(
  { root, leaf, above }: ReturnType<typeof chainOf>,
  judge: (socket: TLSSocket) => void,
): Promise<void> {
  const server = createServer({
    key: String(leaf.key.export({ type: 'pkcs8', format: 'pem' })),
    cert: [leaf, ...above].map(({ certificate }) => pem(certificate)).join(''),
  })
  server.on('tlsClientError', () => undefined)
  server.on('secureConnection', (socket) => socket.on('error', () => undefined))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const socket = connect({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    rejectUnauthorized: false,
    ca: pem(root.certificate),
  })
  try {
    await once(socket, 'secureConnect')
    judge(socket)
  } finally {
    socket.destroy()
    server.close()
    await once(server, 'close')
  }
}

/** What the agent makes of it, and what OpenSSL said. */
async function verdicts(recipe: Recipe): Promise<{ agent: string; openssl: string }> {
  const chain = chainOf(recipe)
  const anchors = { root: x509(chain.root), authorities: [] }
  let openssl = ''
  let agent = 'accepted'
  await judged(chain, (socket) => {
    openssl = socket.authorized ? 'authorized' : String(socket.authorizationError)
    try {
      assertGateway(socket, anchors, 'localhost', Date.now())
    } catch (error) {
      agent = (error as { code: string }).code
    }
  })
  return { agent, openssl }
}

const tomorrow = { notBefore: Date.now() + DAY }

describe('accepted, in date and from tomorrow', () => {
  const rows: readonly (readonly [string, Recipe])[] = [
    ['root, sub-CA with pathlen 0, leaf', {}],
    ['a CA between, its pathlen 1', { between: { ca: { pathLength: 1 } } }],
    ['a sub-CA for servers and clients', { sub: { purposes: [OID.clientAuth, OID.serverAuth] } }],
    [
      'pathlen 1 above two CAs, one of them issued by its own name',
      { root: { ca: { pathLength: 1 } }, between: { names: named('Root') } },
    ],
    ['an unknown extension that is not critical', { sub: { extensions: [unknown] } }],
  ]
  test.for(rows)('%s', async ([, recipe]) => {
    expect(await verdicts(recipe)).toEqual({ agent: 'accepted', openssl: 'authorized' })
    expect(await verdicts({ ...recipe, leaf: { ...recipe.leaf, ...tomorrow } })).toEqual({
      agent: 'accepted',
      openssl: 'CERT_NOT_YET_VALID',
    })
  })
})

describe('refused, though all that OpenSSL reports is a start tomorrow', () => {
  const rows: readonly (readonly [string, string, Recipe])[] = [
    ['a sub-CA for clients alone', 'INVALID_PURPOSE', { sub: { purposes: [OID.clientAuth] } }],
    ['a sub-CA for any purpose', 'INVALID_PURPOSE', { sub: { purposes: [ANY_PURPOSE] } }],
    ['a root for clients alone', 'INVALID_PURPOSE', { root: { purposes: [OID.clientAuth] } }],
    ['pathlen 0 above a CA', 'PATH_LENGTH_EXCEEDED', { between: { ca: { pathLength: 0 } } }],
    ['pathlen 0 of the root exceeded', 'PATH_LENGTH_EXCEEDED', { root: { ca: { pathLength: 0 } } }],
    [
      'an unknown critical extension in a CA',
      'UNSPECIFIED',
      { sub: { extensions: [unknownCritical] } },
    ],
    [
      'an unknown critical extension in the leaf',
      'UNSPECIFIED',
      { leaf: { extensions: [unknownCritical] } },
    ],
    ['a sub-CA that may not sign certificates', 'UNSPECIFIED', { sub: { usage: [6] } }],
    ['a leaf that may not sign', 'INVALID_PURPOSE', { leaf: { usage: [6] } }],
  ]
  test.for(rows)('%s (%s)', async ([, says, recipe]) => {
    const today = await verdicts(recipe)
    expect(today).toEqual({ agent: 'gateway.untrusted', openssl: says })
    const later = await verdicts({ ...recipe, leaf: { ...recipe.leaf, ...tomorrow } })
    expect(later).toEqual({ agent: 'gateway.untrusted', openssl: 'CERT_NOT_YET_VALID' })
  })

  test.for([
    ['name constraints', { sub: { extensions: [nameConstraints] } }],
    ["Netscape's types", { sub: { extensions: [netscapeTypes] } }],
  ] as const)(
    '%s: what OpenSSL passes counts, a date in place of its verdict does not',
    async ([, recipe]) => {
      expect(await verdicts(recipe)).toEqual({ agent: 'accepted', openssl: 'authorized' })
      expect(await verdicts({ ...recipe, leaf: tomorrow })).toEqual({
        agent: 'gateway.untrusted',
        openssl: 'CERT_NOT_YET_VALID',
      })
    },
  )
})

describe('of several ways up', () => {
  const ca = { pathLength: 0 }
  const root = make({ names: named('Root'), ca: { pathLength: null } })
  const key = newKey()
  const sub = (change: Change) => x509(make({ names: named('Sub'), ca, by: root, key, ...change }))
  const now = Date.now()
  const good = sub({})
  const by = { key, name: writeName(named('Sub')) }
  const leafOf = (change: Change) =>
    x509(make({ names: named('gw1'), by, purposes: [OID.serverAuth], ...change }))
  const leaf = leafOf({})
  const terms = { purpose: 'serverAuth', now } as const

  test('one that lasts goes before one that has ended', () => {
    const ended = sub({ notAfter: now - DAY })
    for (const order of [
      [ended, good],
      [good, ended],
    ])
      expect(pathTo(leaf, order, x509(root), terms)?.[1]?.raw).toEqual(good.raw)
    expect(pathTo(leaf, [ended], x509(root), terms)?.[1]?.raw).toEqual(ended.raw)
  })

  test('one that may not serve does not stand in the way of one that may', () => {
    const clients = sub({ purposes: [OID.clientAuth] })
    expect(pathTo(leaf, [clients, good], x509(root), terms)?.[1]?.raw).toEqual(good.raw)
    expect(pathTo(leaf, [clients], x509(root), terms)).toBeUndefined()
    expect(pathTo(leaf, [clients], x509(root), { purpose: 'clientAuth' })).toHaveLength(3)
    expect(pathTo(leaf, [clients], x509(root))).toHaveLength(3)
  })

  test('an extension that cannot be read allows nothing', () => {
    const broken = (name: string) => sub({ extensions: [extension(name, false, Uint8Array.of(5))] })
    expect(pathTo(leaf, [broken(OID.extendedKeyUsage)], x509(root), terms)).toBeUndefined()
  })

  test('a path length below nothing allows no leaf', () => {
    const constraints = sequence(boolean(true), Uint8Array.of(2, 1, 0xff))
    const extensions = [extension(OID.basicConstraints, true, constraints)]
    const negative = make({ names: named('Sub'), by: root, key, usage: [5, 6], extensions })
    expect(pathTo(leaf, [x509(negative)], x509(root), terms)).toBeUndefined()
  })

  test.for([
    ['RSA of 1024 bits', () => generateKeyPairSync('rsa', { modulusLength: 1_024 })],
    ['a curve of 224 bits', () => generateKeyPairSync('ec', { namedCurve: 'secp224r1' })],
  ] as const)('a weak key leads nowhere: %s', ([, pair]) => {
    const weak = leafOf({ key: pair().privateKey })
    expect(pathTo(weak, [good], x509(root), terms)).toBeUndefined()
  })

  test('a signature by SHA-1 leads nowhere', () => {
    const sha1 = sequence(oid('1.2.840.10045.4.1'))
    const { certificate } = make({ names: named('Sub'), ca, by: root, key, algorithm: sha1 })
    const { bytes } = readCertificate(certificate)
    const signature = bitString(sign('sha1', bytes, root.key))
    const weak = x509({ certificate: sequence(bytes, sha1, signature) })
    expect(weak.verify(createPublicKey(root.key))).toBe(true)
    expect(pathTo(leaf, [weak], x509(root), terms)).toBeUndefined()
  })
})

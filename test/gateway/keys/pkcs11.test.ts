/** Keys in an HSM: SoftHSM2 where library and binding are there; what needs neither, always. */
import { createPublicKey, verify } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createAuthority, instant, openIssuers, softwareSigner } from '#ca'
import { createCsr } from '#est'
import { joined, Pkcs11Token } from '../../../gateway/keys/pkcs11.ts'
import { Bench, enrolling, newKey, NOON, random, TENANT } from '../../ca/support.ts'
import { haveHsm, SoftHsm } from './softhsm.ts'

const keyOf = (spki: Uint8Array) =>
  createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })

const raws = [
  { name: 'short values', raw: '0001' + '0002', der: '3006020101020102' },
  { name: 'a high bit', raw: '80ff' + '7fff', der: '300902030080ff02027fff' },
  { name: 'zero', raw: '0000' + '0001', der: '3006020100020101' },
]
test.for(raws)('r||s to DER: $name', ({ raw, der }) => {
  expect(joined(Buffer.from(raw, 'hex')).toHex()).toBe(der)
})

test('without the binding the message says how to install it', () => {
  const settings = { module: 'none.so', token: 't', pin: 'p', binding: '/nonexistent' }
  expect(() => new Pkcs11Token(settings)).toThrow(/npm install --prefix DIR pkcs11js@2\.1\.7/)
})

describe.skipIf(!haveHsm)('SoftHSM2', () => {
  let hsm: SoftHsm
  let token: Pkcs11Token
  beforeAll(() => {
    hsm = new SoftHsm()
    token = new Pkcs11Token(hsm.settings)
  })
  afterAll(() => {
    token[Symbol.dispose]()
    hsm[Symbol.dispose]()
  })

  test.for(['p256', 'p384'] as const)(
    'a %s key is made there, found again and signs',
    async (kind) => {
      const signer = token.generate(`made-${kind}`, kind)
      expect(token.publicKey(`made-${kind}`)).toEqual(signer.publicKey)
      const data = random(300)
      const hash = kind === 'p256' ? 'sha256' : 'sha384'
      expect(verify(hash, data, keyOf(signer.publicKey), await signer.sign(data))).toBe(true)
      expect(() => token.generate(`made-${kind}`, kind)).toThrow(/already/)
    },
  )

  test('400 signatures at a time over 4 sessions: each verifies', async () => {
    const signer = token.generate('parallel', 'p256')
    const key = keyOf(signer.publicKey)
    const all = Array.from({ length: 400 }, () => random(200))
    const signatures = await Promise.all(all.map(async (each) => await signer.sign(each)))
    expect(
      all.every((each, at) => verify('sha256', each, key, signatures[at] ?? Buffer.of())),
    ).toBe(true)
  })

  test('a key that is not there', async () => {
    const signer = token.signer('nobody', token.publicKey('made-p256'))
    await expect(Promise.resolve(signer.sign(random(10)))).rejects.toMatchObject({
      code: 'hsm.key',
    })
  })

  test('token pulled: 503, the intention stays open; put back: the same serial is issued', async () => {
    const issuing = token.generate('issuing', 'p256')
    const root = softwareSigner(newKey('P-384'))
    const made = await createAuthority({
      tenant: TENANT,
      root,
      issuing,
      now: instant(NOON),
      random,
    })
    const active = { certificate: made.issuing, signer: issuing }
    await using bench = await Bench.open()
    const issuers = openIssuers({ roots: [made.root], active })
    bench.issuers = () => issuers
    const serve = bench.server()
    const request = enrolling(
      createCsr(newKey(), { deviceId: 'press-07', tenant: TENANT }),
      await bench.token(),
    )
    hsm.pull()
    const refused = await Promise.all([serve(request), serve(request), serve(request)])
    expect(refused.map((each) => each.status)).toEqual([503, 503, 503])
    expect(Number(refused[0]?.headers['retry-after'])).toBeGreaterThan(0)
    expect((await serve(request)).status).toBe(503)
    const [open, more] = await bench.store.openIntentions(TENANT)
    expect(more).toBeUndefined()
    hsm.putBack()
    expect((await serve(request)).status).toBe(200)
    expect(await bench.store.findCertificate(open?.serial ?? '')).toMatchObject({ state: 'active' })
  })
})

/** Checklist item 35: CRL v2, nextUpdate, number, AKI; deltas by their builder. Read by the real openssl. */
import { createPublicKey, X509Certificate } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { instant, issueCrl, softwareSigner, type Instant, type RevocationReason } from '#ca'
import { signCrl, type CrlContents, type SigningIssuer } from '../../ca/crl.ts'
import { childrenOf, readDer, TAG } from '../../ca/der/reader.ts'
import { openssl, type Openssl } from './openssl.ts'
import { intention } from './store-contract.ts'
import { Bench, DAY, HOUR, newHouse, newKey, NOON, pem, TENANT, type House } from './support.ts'

let ssl: Openssl
let house: House
beforeEach(async () => {
  ssl = openssl()
  house = await newHouse()
})
afterEach(() => ssl[Symbol.dispose]())

const at = (hours: number): Instant => instant(NOON + hours * HOUR)
const signing = (): SigningIssuer => house.issuers.active
const contents = (change: Partial<CrlContents> = {}): CrlContents => ({
  number: 7,
  thisUpdate: at(0),
  nextUpdate: at(24),
  revoked: [],
  ...change,
})
const wide = { depth: 24, nodes: 10_000_000 }

function text(der: Uint8Array): string {
  const file = ssl.file('a.crl', pem(der, 'X509 CRL'))
  const ca = ssl.file('ca.pem', pem(house.authority.issuing))
  const { status, text: said } = ssl.run('crl', '-in', file, '-CAfile', ca, '-noout', '-text')
  expect(said).toContain('verify OK')
  expect(status).toBe(0)
  return said
}

describe('a list as openssl reads it', () => {
  test('35: version 2, issuer, both dates, number, authority key id', async () => {
    const said = text(await signCrl(signing(), contents()))
    expect(said).toContain('Version 2 (0x1)')
    expect(said).toContain('Last Update: Mar  1 12:00:00 2026 GMT')
    expect(said).toContain('Next Update: Mar  2 12:00:00 2026 GMT')
    expect(said).toMatch(/X509v3 CRL Number: *\n *7\n/)
    const id = (signing().keyIdentifier.toHex().toUpperCase().match(/../g) ?? []).join(':')
    expect(said).toContain(`X509v3 Authority Key Identifier: \n                ${id}`)
    expect(said).toContain('No Revoked Certificates.')
    expect(said).not.toContain('Delta')
  })

  test('RFC 5280 5.1.2.6: without entries the list is absent, not empty', async () => {
    const [tbs] = childrenOf(readDer(await signCrl(signing(), contents())), TAG.sequence, 'CRL')
    expect(tbs?.children.map(({ tag }) => tag)).toEqual([0x02, 0x30, 0x30, 0x17, 0x17, 0xa0])
  })

  const reasons: readonly [RevocationReason, string | null][] = [
    ['unspecified', null],
    ['keyCompromise', 'Key Compromise'],
    ['cACompromise', 'CA Compromise'],
    ['affiliationChanged', 'Affiliation Changed'],
    ['superseded', 'Superseded'],
    ['cessationOfOperation', 'Cessation Of Operation'],
    ['privilegeWithdrawn', 'Privilege Withdrawn'],
  ]
  test.for(reasons)('the reason %s', async ([reason, said]) => {
    const revoked = [{ serial: '4a'.repeat(16), at: at(-1), reason }]
    const shown = text(await signCrl(signing(), contents({ revoked })))
    expect(shown).toContain(`Serial Number: ${'4A'.repeat(16)}`)
    expect(shown).toContain('Revocation Date: Mar  1 11:00:00 2026 GMT')
    if (said === null) expect(shown).not.toContain('Reason Code')
    else expect(shown).toContain(said)
  })

  test('2049 is UTCTime, 2050 GeneralizedTime without fractions', async () => {
    const turn = Date.UTC(2049, 11, 31, 23, 59, 59)
    const thisUpdate = instant(turn)
    const nextUpdate = instant(turn + 1_000)
    const der = await signCrl(signing(), contents({ thisUpdate, nextUpdate }))
    const [tbs] = childrenOf(readDer(der), TAG.sequence, 'CRL')
    const dates = tbs?.children
      .slice(3, 5)
      .map(({ tag, value }) => [tag, Buffer.from(value).toString()])
    expect(dates).toEqual([
      [TAG.utcTime, '491231235959Z'],
      [TAG.generalizedTime, '20500101000000Z'],
    ])
    text(der)
  })

  test('twenty thousand entries, each found', async () => {
    const serial = (n: number) => `4${n.toString(16).padStart(31, '0')}`
    const revoked = Array.from({ length: 20_000 }, (_, n) => ({
      serial: serial(n),
      at: at(-1),
      reason: 'keyCompromise' as const,
    }))
    const der = await signCrl(signing(), contents({ revoked }))
    const [tbs] = childrenOf(readDer(der, wide), TAG.sequence, 'CRL')
    expect(tbs?.children[5]?.children).toHaveLength(20_000)
    expect(text(der)).toContain(`Serial Number: ${serial(19_999).toUpperCase()}`)
  })

  test.for(['P-256', 'P-384'] as const)('signed by a key on %s', async (curve) => {
    const key = newKey(curve)
    const ca = { ...signing(), signer: softwareSigner(key) }
    const der = await signCrl(ca, contents())
    const parts = childrenOf(readDer(der), TAG.sequence, 'CRL')
    expect(parts).toHaveLength(3)
    expect(createPublicKey(key).asymmetricKeyDetails?.namedCurve).toBeDefined()
  })

  test.for([
    ['a number of 0', { number: 0 }],
    ['a number that is no integer', { number: 1.5 }],
    ['a delta before its base', { number: 7, base: 8 }],
  ] as const)('%s is not signed', async ([, change]) => {
    await expect(signCrl(signing(), contents(change))).rejects.toMatchObject({ code: 'profile' })
  })

  test('a key that signs wrongly publishes nothing', async () => {
    const { signer } = house.issuers.active
    const liar = { ...signer, sign: () => softwareSigner(newKey()).sign(Uint8Array.of(1)) }
    await expect(signCrl({ ...signing(), signer: liar }, contents())).rejects.toMatchObject({
      code: 'signer.unavailable',
    })
  })
})

describe('a device certificate under the list', () => {
  async function verdict(bench: Bench, ...more: string[]) {
    house = bench.house
    const leaf = await bench.enrolled(newKey())
    const serial = new X509Certificate(leaf).serialNumber.toLowerCase()
    return {
      serial,
      check: (crl: Uint8Array) => {
        const crls = ssl.file('all.pem', pem(crl, 'X509 CRL') + more.join(''))
        return ssl.run(
          'verify',
          '-x509_strict',
          '-purpose',
          'sslclient',
          '-crl_check',
          '-attime',
          String(Math.floor(bench.now / 1_000)),
          '-CAfile',
          ssl.file('root.pem', pem(house.authority.root)),
          '-untrusted',
          ssl.file('issuing.pem', pem(house.authority.issuing)),
          '-CRLfile',
          crls,
          ssl.file('leaf.pem', pem(leaf)),
        )
      },
    }
  }
  const listOf = async (bench: Bench) =>
    (
      await issueCrl(bench.house.issuers.active, {
        tenant: TENANT,
        now: instant(bench.now),
        store: bench.store,
      })
    ).der

  test('good before, revoked after, by the real verifier', async () => {
    await using bench = await Bench.open()
    const { serial, check } = await verdict(bench)
    expect(check(await listOf(bench)).text).toContain('OK')
    await bench.store.revoke(TENANT, { serial }, 'keyCompromise', instant(bench.now))
    const { status, text: said } = check(await listOf(bench))
    expect(said).toContain('certificate revoked')
    expect(status).not.toBe(0)
  })

  test('a list that has run out proves nothing', async () => {
    await using bench = await Bench.open()
    const { check } = await verdict(bench)
    const list = await listOf(bench)
    bench.now = NOON + DAY - 1_000
    expect(check(list).text).toContain('OK')
    bench.now = NOON + DAY + 1_000
    expect(check(list).text).toContain('CRL has expired')
  })
})

describe('34: pointers and dates', () => {
  const shown = async (bench: Bench, seconds: number) => {
    bench.decision = {
      allow: true,
      denials: [],
      decision_id: 'd_short',
      obligations: { lifetimeSeconds: seconds },
    }
    const file = ssl.file('leaf.pem', pem(await bench.enrolled(newKey())))
    return ssl.run('x509', '-in', file, '-noout', '-text').text
  }
  test.for([
    ['24 hours', 86_400, true],
    ['two seconds more', 86_402, false],
  ] as const)('34: a life of %s: noRevAvail %s', async ([, seconds, says]) => {
    await using bench = await Bench.open()
    const said = await shown(bench, seconds)
    expect(/2\.5\.29\.56|No Revocation Available/.test(said)).toBe(says)
    expect(said).not.toContain('CRL Distribution Points')
    expect(said).not.toContain('Authority Information Access')
  })
  test('34: it ends with its issuer, not later', async () => {
    await using bench = await Bench.open()
    const { notAfter } = bench.house.issuers.active
    bench.now = notAfter - HOUR
    const leaf = new X509Certificate(await bench.enrolled(newKey()))
    expect(Date.parse(leaf.validTo)).toBe(notAfter)
  })
})

describe('deltas, which the builder makes and no gateway serves', () => {
  test('35: the indicator is critical, and the base points to them', async () => {
    const delta = text(await signCrl(signing(), contents({ number: 9, base: 7 })))
    expect(delta).toMatch(/X509v3 Delta CRL Indicator: critical\n *7\n/)
    const freshest = 'http://crl.plant.example/delta.crl'
    const base = text(await signCrl(signing(), contents({ freshest })))
    expect(base).toContain('X509v3 Freshest CRL')
    expect(base).toContain(`URI:${freshest}`)
  })
})

describe('what a list holds', () => {
  const list = (bench: Bench, now: number) =>
    issueCrl(bench.house.issuers.active, { tenant: TENANT, now: instant(now), store: bench.store })

  async function revoked(bench: Bench, notAfter: number, reasonAt = NOON) {
    const issuer = bench.house.issuers.active.id
    const wanted = intention({ issuer, notAfter: instant(notAfter) })
    await bench.store.record(wanted)
    const { serial } = wanted
    await bench.store.revoke(TENANT, { serial }, 'superseded', instant(reasonAt))
    return serial
  }

  test('its own issuer, its own tenant, the revoked and nothing else', async () => {
    await using bench = await Bench.open()
    const serial = await revoked(bench, NOON + DAY)
    await bench.store.record(intention({ issuer: bench.house.issuers.active.id }))
    const other = intention({ issuer: 'bb'.repeat(20) })
    await bench.store.record(other)
    await bench.store.revoke(TENANT, { serial: other.serial }, 'superseded', at(0))
    const { der, entries } = await list(bench, NOON)
    expect(entries).toBe(1)
    house = bench.house
    expect(text(der)).toContain(`Serial Number: ${serial.toUpperCase()}`)
  })

  test('an expired certificate stays until a regular list has told of it after its end', async () => {
    await using bench = await Bench.open()
    await revoked(bench, NOON + 30 * 60_000)
    const entries = async (now: number) => (await list(bench, now)).entries
    expect(await entries(NOON)).toBe(1)
    // Expired at 12:30, listed at 12:31 because something was revoked, and at 13:00 regularly.
    expect(await entries(NOON + 31 * 60_000)).toBe(1)
    expect(await entries(NOON + HOUR)).toBe(1)
    expect(await entries(NOON + 2.5 * HOUR)).toBe(0)
  })

  test('nor does it vanish because the gateway was down for days', async () => {
    await using bench = await Bench.open()
    await revoked(bench, NOON + HOUR)
    await list(bench, NOON)
    expect((await list(bench, NOON + 3 * DAY)).entries).toBe(1)
    expect((await list(bench, NOON + 3 * DAY + 1_000)).entries).toBe(0)
  })

  test('numbers rise, whatever the clock does, and over reopening', async () => {
    await using bench = await Bench.open()
    const clocks = [NOON, NOON, NOON - 365 * DAY, 0, NOON + 1_000]
    const numbers: number[] = []
    for (const now of clocks) numbers.push((await list(bench, now)).number)
    expect(numbers).toEqual([NOON, NOON + 1, NOON + 2, NOON + 3, NOON + 1_000])
    expect(
      await bench.store.nextCrl('other.sallyport.internal', bench.house.issuers.active.id, at(-1)),
    ).toEqual({ number: at(-1), previous: null })
  })

  test('fractions of a second do not reach the dates', async () => {
    await using bench = await Bench.open()
    const { thisUpdate, nextUpdate, number } = await list(bench, NOON + 999)
    expect([thisUpdate, nextUpdate, number]).toEqual([NOON, NOON + DAY, NOON + 999])
  })
})

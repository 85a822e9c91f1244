/** Checklist item 36: OCSP with a delegated signer, asked and checked by the real openssl. */
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  answerOcsp,
  instant,
  issueResponder,
  OCSP_REQUEST_LIMIT,
  OcspAnswers,
  softwareSigner,
  type OcspAnswer,
  type Responder,
} from '#ca'
import { childrenOf, readDer, TAG } from '../../ca/der/reader.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import { boolean, context, octetString, sequence, smallInteger, tlv } from '../../ca/der/writer.ts'
import { openssl, type Openssl } from './openssl.ts'
import { intention } from './store-contract.ts'
import {
  Bench,
  DAY,
  HOUR,
  newHouse,
  newKey,
  NOON,
  pem,
  random,
  TENANT,
  type House,
} from './support.ts'

let ssl: Openssl
let bench: Bench
let leaf: Uint8Array
let serial: string
let responder: Responder
let answers: OcspAnswers

beforeEach(async () => {
  ssl = openssl()
  bench = await Bench.open()
  leaf = await bench.enrolled(newKey())
  serial = new X509Certificate(leaf).serialNumber.toLowerCase()
  responder = await made()
  answers = new OcspAnswers()
})
afterEach(async () => {
  await bench[Symbol.asyncDispose]()
  ssl[Symbol.dispose]()
})

async function made(): Promise<Responder> {
  const { issuers } = bench.house
  const signer = softwareSigner(newKey())
  const now = instant(bench.now)
  const request = {
    tenant: TENANT,
    gateway: 'gw1',
    issuers,
    issuer: issuers.active,
    signer,
    now,
    random,
  }
  return await issueResponder(request, bench.options())
}

/** A request by openssl for a certificate, or for a serial of its issuer. */
function asked(
  what: { readonly cert?: Uint8Array; readonly serials?: readonly string[] },
  {
    house = bench.house,
    options = ['-no_nonce'],
  }: { house?: House; options?: readonly string[] } = {},
): Uint8Array {
  const out = join(ssl.folder, 'request.der')
  const issuer = ssl.file('issuer.pem', pem(house.authority.issuing))
  const which =
    what.cert === undefined
      ? (what.serials ?? []).flatMap((each) => ['-serial', `0x${each}`])
      : ['-cert', ssl.file('leaf.pem', pem(what.cert))]
  const { status, text } = ssl.run('ocsp', ...options, '-issuer', issuer, ...which, '-reqout', out)
  if (status !== 0) throw new Error(text)
  return new Uint8Array(readFileSync(out))
}

async function answer(request: Uint8Array, more: Partial<Parameters<typeof answerOcsp>[1]> = {}) {
  return await answerOcsp(request, {
    tenant: TENANT,
    issuers: bench.house.issuers,
    store: bench.store,
    responder: async () => responder,
    answers,
    now: instant(bench.now),
    ...more,
  })
}

/** What openssl makes of an answer, with every check it has. */
function verdict({ der }: OcspAnswer, certificate = leaf, request?: Uint8Array) {
  return ssl.run(
    'ocsp',
    '-respin',
    ssl.file('response.der', der),
    ...(request === undefined ? [] : ['-reqin', ssl.file('asked.der', request)]),
    '-issuer',
    ssl.file('issuer.pem', pem(bench.house.authority.issuing)),
    ...(request === undefined ? ['-cert', ssl.file('leaf.pem', pem(certificate))] : []),
    '-CAfile',
    ssl.file('root.pem', pem(bench.house.authority.root)),
    '-verify_other',
    ssl.file('other.pem', pem(bench.house.authority.issuing)),
    '-attime',
    String(Math.floor(bench.now / 1_000)),
    '-validity_period',
    // openssl compares thisUpdate with the clock of the machine, whatever -attime says.
    String(100 * 365 * 86_400),
    '-text',
  )
}

describe('36: the delegated signer', () => {
  test('OCSPSigning and nocheck, seven days, no SAN, by the issuer itself, on record', async () => {
    const file = ssl.file('responder.pem', pem(responder.certificate))
    const { text } = ssl.run('x509', '-in', file, '-noout', '-text')
    expect(text).toMatch(/X509v3 Extended Key Usage: *\n *OCSP Signing\n/)
    expect(text).toContain('OCSP No Check')
    expect(text).toMatch(/X509v3 Key Usage: critical\n *Digital Signature\n/)
    expect(text).not.toContain('Subject Alternative Name')
    expect(text).toContain('Not After : Mar  8 11:54:59 2026 GMT')
    expect(
      new X509Certificate(responder.certificate).verify(bench.house.issuers.active.publicKey),
    ).toBe(true)
    const row = await bench.store.findCertificate(responder.serial)
    expect(row).toMatchObject({ profile: 'ocsp', subject: 'gw1', state: 'active' })
    expect(bench.events.map((event) => event.code === 'cert.issue' && event.serial)).toContain(
      responder.serial,
    )
  })

  test('without the issuer’s key there is none', async () => {
    const { signer: _gone, ...issuer } = bench.house.issuers.active
    const { issuers } = bench.house
    const request = {
      tenant: TENANT,
      gateway: 'gw1',
      issuers,
      issuer,
      signer: softwareSigner(newKey()),
      now: instant(NOON),
      random,
    }
    await expect(issueResponder(request, bench.options())).rejects.toMatchObject({
      code: 'issuer.mismatch',
    })
  })
})

describe('36: answers', () => {
  test('good', async () => {
    const { text, status } = verdict(await answer(asked({ cert: leaf })))
    expect(text).toContain('Response verify OK')
    expect(text).toMatch(/leaf\.pem: good/)
    expect(text).toContain('This Update: Mar  1 12:00:00 2026 GMT')
    expect(text).toContain('Next Update: Mar  1 13:00:00 2026 GMT')
    expect(status).toBe(0)
  })

  test('revoked, with date and reason', async () => {
    await bench.store.revoke(TENANT, { serial }, 'keyCompromise', instant(NOON - HOUR))
    const { text } = verdict(await answer(asked({ cert: leaf })))
    expect(text).toContain('Response verify OK')
    expect(text).toMatch(/leaf\.pem: revoked/)
    expect(text).toContain('Reason: keyCompromise')
    expect(text).toContain('Revocation Time: Mar  1 11:00:00 2026 GMT')
  })

  test('revoked without a reason says none', async () => {
    await bench.store.revoke(TENANT, { serial }, 'unspecified', instant(NOON))
    const { text } = verdict(await answer(asked({ cert: leaf })))
    expect(text).toMatch(/leaf\.pem: revoked/)
    expect(text).not.toContain('Reason')
  })

  const statuses: readonly { name: string; said: string; serial: () => Promise<string> }[] = [
    { name: 'a serial never issued', said: 'unknown', serial: async () => '4b'.repeat(16) },
    { name: 'the serial 0', said: 'unknown', serial: async () => '00' },
    {
      name: 'an intention that may still be signed',
      said: 'unknown',
      serial: async () => {
        const wanted = intention({ issuer: bench.house.issuers.active.id })
        await bench.store.record(wanted)
        return wanted.serial
      },
    },
    {
      name: 'a serial of another issuer',
      said: 'unknown',
      serial: async () => {
        const wanted = intention()
        await bench.store.record(wanted)
        await bench.store.complete(wanted, Uint8Array.of(1), 'f')
        return wanted.serial
      },
    },
    {
      name: 'a superseded one, which has not been revoked',
      said: 'good',
      serial: async () => {
        await bench.store.proven(serial, instant(NOON))
        const next = await bench.enrolled(newKey())
        const newer = new X509Certificate(next).serialNumber.toLowerCase()
        await bench.store.proven(newer, instant(NOON))
        expect((await bench.store.findCertificate(serial))?.state).toBe('superseded')
        return serial
      },
    },
  ]
  test.for(statuses)('$name: $said', async ({ said, serial: find }) => {
    const request = asked({ serials: [await find()] })
    const { text } = verdict(await answer(request), leaf, request)
    expect(text).toContain('Response verify OK')
    expect(text).toContain(`Cert Status: ${said}`)
  })

  test.for(['sha1', 'sha256', 'sha384', 'sha512'])(
    'a certificate id made with %s',
    async (hash) => {
      const request = asked({ cert: leaf }, { options: ['-no_nonce', `-${hash}`] })
      const { text } = verdict(await answer(request), leaf, request)
      expect(text).toContain('Response verify OK')
      expect(text).toContain(`Hash Algorithm: ${hash}`)
      expect(text).toContain('Cert Status: good')
    },
  )

  test('the nonce comes back', async () => {
    const request = asked({ cert: leaf }, { options: ['-nonce'] })
    const given = await answer(request)
    const { text, status } = verdict(given, leaf, request)
    expect(text).not.toContain('WARNING: no nonce')
    expect(text).not.toContain('Nonce Verify error')
    expect(text).toContain('OCSP Nonce')
    expect(status).toBe(0)
    expect(given.shared).toBe(false)
    const again = await answer(request)
    expect(Buffer.from(again.der).equals(given.der)).toBe(false)
  })

  test('sixteen at once, each its own status', async () => {
    await bench.store.revoke(TENANT, { serial }, 'superseded', instant(NOON))
    const serials = [
      serial,
      ...Array.from({ length: 15 }, (_, n) => `4c${String(n).padStart(30, '0')}`),
    ]
    const request = asked({ serials })
    const { text } = verdict(await answer(request), leaf, request)
    expect(text).toContain('Response verify OK')
    expect(text.match(/Cert Status: unknown/g)).toHaveLength(15)
    expect(text.match(/Cert Status: revoked/g)).toHaveLength(1)
    expect((await answer(asked({ serials: [...serials, '01'] }))).status).toBe('malformedRequest')
  })

  test('every date is GeneralizedTime, to the second', async () => {
    bench.now = NOON + 987
    await bench.store.revoke(TENANT, { serial }, 'superseded', instant(NOON - 13))
    const { der } = await answer(asked({ cert: leaf }))
    const dates = [
      ...Buffer.from(der)
        .toString('latin1')
        .matchAll(/\d{14}[^Z]?Z?/g),
    ].map(([t]) => t)
    expect(dates).toEqual([
      '20260301120000Z',
      '20260301115959Z',
      '20260301120000Z',
      '20260301130000Z',
    ])
  })

  test('after 2049 too', async () => {
    const late = Date.UTC(2050, 0, 1)
    const house = await newHouse(late)
    await using other = await Bench.open(':memory:', house)
    other.now = late
    const { issuers } = house
    const signer = softwareSigner(newKey())
    const now = instant(late)
    const request = {
      tenant: TENANT,
      gateway: 'gw1',
      issuers,
      issuer: issuers.active,
      signer,
      now,
      random,
    }
    const theirs = await issueResponder(request, other.options())
    const { der } = await answer(asked({ serials: ['01'] }, { house }), {
      issuers,
      store: other.store,
      responder: async () => theirs,
      now,
    })
    expect(Buffer.from(der).toString('latin1')).toContain('20500101000000Z')
  })
})

describe('36: refusals, which nobody signs', () => {
  const bytesOf = async (request: Uint8Array, more = {}) =>
    (await answer(request, more)).der.toHex()

  test('a foreign issuer: unauthorized', async () => {
    const house = await newHouse()
    expect(await bytesOf(asked({ serials: [serial] }, { house }))).toBe('30030a0106')
    const { text } = verdict(await answer(asked({ serials: [serial] }, { house })))
    expect(text).toContain('Responder Error: unauthorized (6)')
  })
  test('our root, whose key is in the safe: unauthorized', async () => {
    const house = {
      ...bench.house,
      authority: { ...bench.house.authority, issuing: bench.house.authority.root },
    }
    expect(await bytesOf(asked({ serials: [serial] }, { house }))).toBe('30030a0106')
  })
  test('one foreign issuer among ours: unauthorized as a whole', async () => {
    const ours = requestList(asked({ serials: [serial] }))
    const theirs = requestList(asked({ serials: [serial] }, { house: await newHouse() }))
    expect(await bytesOf(sequence(sequence(sequence(ours, theirs))))).toBe('30030a0106')
  })
  test('no responder for the issuer: unauthorized', async () => {
    expect(await bytesOf(asked({ cert: leaf }), { responder: async () => undefined })).toBe(
      '30030a0106',
    )
  })
  test('the store does not answer: tryLater, and somebody is told', async () => {
    const failures: unknown[] = []
    const store = { findCertificate: () => Promise.reject(new Error('disk')) }
    const options = {
      tenant: TENANT,
      issuers: bench.house.issuers,
      store,
      responder: async () => responder,
      answers,
      now: instant(NOON),
    }
    const { status, der } = await answerOcsp(asked({ cert: leaf }), options, (e) =>
      failures.push(e),
    )
    expect([status, der.toHex()]).toEqual(['tryLater', '30030a0103'])
    expect(failures).toMatchObject([{ code: 'store.unavailable' }])
  })
  test('a key that does not sign: tryLater', async () => {
    const sign = () => Promise.reject(new Error('token pulled'))
    const broken = { ...responder, signer: { ...responder.signer, sign } }
    expect(await bytesOf(asked({ cert: leaf }), { responder: async () => broken })).toBe(
      '30030a0103',
    )
  })

  /** The first Request of what openssl made. */
  function requestList(request: Uint8Array): Uint8Array {
    const [tbs] = childrenOf(readDer(request), TAG.sequence, 'OCSPRequest')
    const [list] = childrenOf(tbs, TAG.sequence, 'TBSRequest')
    return list?.children[0]?.bytes ?? new Uint8Array()
  }
  const extended = (id: string, critical: boolean, value: Uint8Array) =>
    sequence(
      sequence(
        sequence(requestList(asked({ cert: leaf }))),
        context(
          2,
          sequence(sequence(oid(id), ...(critical ? [boolean(true)] : []), octetString(value))),
        ),
      ),
    )
  const single = () => sequence(requestList(asked({ cert: leaf })))
  const malformed: readonly [string, () => Uint8Array][] = [
    ['nothing', () => new Uint8Array()],
    ['garbage', () => Uint8Array.of(1, 2, 3)],
    ['bytes after the end', () => Uint8Array.of(...asked({ cert: leaf }), 0)],
    ['cut short', () => asked({ cert: leaf }).subarray(0, -1)],
    ['an empty list', () => sequence(sequence(sequence()))],
    ['no list', () => sequence(sequence())],
    ['another version', () => sequence(sequence(context(0, smallInteger(1)), single()))],
    ['a third part', () => sequence(sequence(single()), context(0, sequence()), context(1))],
    ['an unknown part', () => sequence(sequence(single(), context(3, sequence())))],
    ['a critical extension nobody knows', () => extended('1.2.3.4', true, tlv(TAG.null))],
    ['a nonce of no octets', () => extended(OID.ocspNonce, false, octetString())],
    [
      'a nonce of 129 octets',
      () => extended(OID.ocspNonce, false, octetString(new Uint8Array(129))),
    ],
    ['a nonce that is no OCTET STRING', () => extended(OID.ocspNonce, false, tlv(TAG.null))],
    ['a request over the limit', () => sequence(octetString(new Uint8Array(OCSP_REQUEST_LIMIT)))],
  ]
  test.for(malformed)('%s: malformedRequest', async ([, bytes]) => {
    expect(await bytesOf(bytes())).toBe('30030a0101')
  })
  const accepted: readonly [string, () => Uint8Array][] = [
    ['a nonce of one octet', () => extended(OID.ocspNonce, false, octetString(Uint8Array.of(7)))],
    [
      'a nonce of 128 octets',
      () => extended(OID.ocspNonce, true, octetString(new Uint8Array(128))),
    ],
    ['an extension that is not critical', () => extended('1.2.3.4', false, tlv(TAG.null))],
    ['version 1 written out', () => sequence(sequence(context(0, smallInteger(0)), single()))],
    ['a signed request', () => sequence(sequence(single()), context(0, sequence(tlv(TAG.null))))],
  ]
  test.for(accepted)('%s: an answer', async ([, bytes]) => {
    expect((await answer(bytes())).status).toBe('successful')
  })

  test('ten thousand mutations: an answer or a refusal, never a throw', async () => {
    const request = asked({ cert: leaf }, { options: ['-nonce'] })
    const failures: unknown[] = []
    const options = {
      tenant: TENANT,
      issuers: bench.house.issuers,
      store: { findCertificate: async () => undefined },
      responder: async () => responder,
      answers,
      now: instant(NOON),
    }
    let successes = 0
    for (let n = 0; n < 10_000; n++) {
      const bytes = Uint8Array.from(request)
      const at = n % bytes.length
      bytes[at] = (bytes[at] ?? 0) ^ (1 + ((n * 31) % 255))
      const { status } = await answerOcsp(bytes, options, (error) => failures.push(error))
      if (status === 'successful') successes++
    }
    expect(failures).toEqual([])
    // The serial and the nonce may be any.
    expect(successes).toBeLessThan(6_000)
  })
})

describe('kept answers', () => {
  const hex = async () => (await answer(asked({ cert: leaf }))).der.toHex()

  test('the same bytes while three quarters of its time last, then new ones', async () => {
    const first = await hex()
    bench.now = NOON + 0.75 * HOUR
    expect(await hex()).toBe(first)
    bench.now++
    expect(await hex()).not.toBe(first)
    bench.now = NOON - 1
    expect(await hex()).not.toBe(first)
  })
  test('a revocation is told at once', async () => {
    const first = await hex()
    await bench.store.revoke(TENANT, { serial }, 'keyCompromise', instant(NOON))
    const given = await answer(asked({ cert: leaf }))
    expect(given.der.toHex()).not.toBe(first)
    expect(verdict(given).text).toMatch(/leaf\.pem: revoked/)
    expect(answers.size).toBe(1)
  })
  test('another responder signs anew', async () => {
    const first = await hex()
    responder = await made()
    expect(await hex()).not.toBe(first)
  })
  test('nothing outlives the responder', async () => {
    bench.now = responder.notAfter - 1_000
    const { nextUpdate } = await answer(asked({ cert: leaf }))
    expect(nextUpdate).toBe(responder.notAfter)
    expect(bench.now - NOON).toBeGreaterThan(6 * DAY)
  })
  test('so many and no more; the oldest go', async () => {
    answers = new OcspAnswers(3)
    for (let n = 0; n < 5; n++) await answer(asked({ serials: [`4d${n}`.padEnd(32, '0')] }))
    expect(answers.size).toBe(3)
  })
  test('answers with a nonce are not kept', async () => {
    await answer(asked({ cert: leaf }, { options: ['-nonce'] }))
    expect(answers.size).toBe(0)
  })
})

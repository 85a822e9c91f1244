/** One assertion against one key: what is accepted, and every way in which it is not. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  checkAssertion,
  checkSignedGrant,
  hashOf,
  readAssertion,
  readKey,
  readSignedGrant,
  readStatement,
  type KeyAlgorithm,
  type SignedGrant,
  type Statement,
} from '#approval'
import { softKey, type Bend } from '../support/authenticator.ts'
import { statementOf } from '../support/statement.ts'

const ORIGIN = 'https://gw.plant.example:8443'
const statement = statementOf(1_780_000_000, {
  id: 'g_00000000000000000000000001',
  requester: 'https://gw/oidc|a',
  vendor: 'Pumpworks',
  not_after: 1_780_003_600,
  reason: 'Lager \u{1f527} prüfen',
})
const challenge = Buffer.from(hashOf(statement), 'hex')
const text = challenge.toString('base64url')
const expected = { challenge, rpId: 'gw.plant.example', origins: [ORIGIN] }
const passkey = softKey(ORIGIN)
const another = softKey(ORIGIN)
const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey
const spkiOf = (key: typeof rsa) =>
  key.export({ type: 'spki', format: 'der' }).toString('base64url')

describe('accepted', () => {
  test.for(['ES256', 'EdDSA', 'RS256'] as const)('by %s, with its counter', (alg: KeyAlgorithm) => {
    const key = softKey(ORIGIN, alg)
    const given = key.assertion(text, { counter: 7 })
    expect(checkAssertion(given, key.signing, expected)).toEqual({ ok: true, counter: 7 })
  })
})

describe('refused', () => {
  const bends: readonly { readonly name: string; readonly bend: Bend; readonly code: string }[] = [
    { name: 'of another site', bend: { origin: 'https://evil.example' }, code: 'assertion.origin' },
    {
      name: 'of the site at another port',
      bend: { origin: 'https://gw.plant.example' },
      code: 'assertion.origin',
    },
    { name: 'asked for in a frame', bend: { crossOrigin: true }, code: 'assertion.origin' },
    { name: 'for another relying party', bend: { rpId: 'plant.example' }, code: 'assertion.rp' },
    { name: 'over another challenge', bend: { challenge: 'AAAA' }, code: 'assertion.challenge' },
    { name: 'a registration', bend: { type: 'webauthn.create' }, code: 'assertion.type' },
    { name: 'nobody was present', bend: { flags: 0x04 }, code: 'assertion.presence' },
    { name: 'nobody was verified', bend: { flags: 0x01 }, code: 'assertion.verification' },
    {
      name: 'backed up, and cannot be',
      bend: { flags: 0x15 },
      code: 'assertion.malformed',
    },
    {
      name: 'octets that no flag announces',
      bend: { extra: new Uint8Array(4) },
      code: 'assertion.malformed',
    },
    {
      name: 'signed by another key',
      bend: { key: another.privateKey },
      code: 'assertion.signature',
    },
  ]
  test.for(bends)('$name', ({ bend, code }) => {
    const given = passkey.assertion(text, bend)
    expect(checkAssertion(given, passkey.signing, expected)).toEqual({ ok: false, code })
  })

  const { spki } = passkey.signing
  test.for([
    { name: 'an EC key said to be RSA', key: { alg: 'RS256', spki } },
    { name: 'an EC key said to be Ed25519', key: { alg: 'EdDSA', spki } },
    { name: 'a key of another curve', key: { alg: 'ES256', spki: spkiOf(p384) } },
    { name: 'an RSA key that is too short', key: { alg: 'RS256', spki: spkiOf(rsa) } },
    { name: 'no algorithm at all', key: { alg: 'none', spki } },
    { name: 'an algorithm that every object has', key: { alg: 'toString', spki } },
    { name: 'no key', key: { alg: 'ES256', spki: 'AAAA' } },
  ])('algorithms confused: $name', ({ key }) => {
    expect(readKey(key)).toBeUndefined()
    const given = passkey.assertion(text)
    expect(checkAssertion(given, key as typeof passkey.signing, expected)).toEqual({
      ok: false,
      code: 'assertion.algorithm',
    })
  })

  test('with any octet of it changed', () => {
    const given = passkey.assertion(text)
    const members = ['authenticator_data', 'client_data', 'signature'] as const
    fc.assert(
      fc.property(
        fc.constantFrom(...members),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (member, at, by) => {
          const bytes = Buffer.from(given[member], 'base64url')
          bytes[at % bytes.length]! ^= by
          const changed = { ...given, [member]: bytes.toString('base64url') }
          expect(checkAssertion(changed, passkey.signing, expected).ok).toBe(false)
        },
      ),
      { numRuns: 300 },
    )
  })

  test('whatever it is, it is refused and nothing is thrown', () => {
    const member = fc.oneof(
      fc.string(),
      fc.base64String(),
      fc.uint8Array().map((b) => Buffer.from(b).toString('base64url')),
    )
    fc.assert(
      fc.property(member, member, member, (authenticator_data, client_data, signature) => {
        const given = { credential: 'AAAA', authenticator_data, client_data, signature }
        expect(checkAssertion(given, passkey.signing, expected).ok).toBe(false)
      }),
    )
  })
})

describe('a signed grant as a file', () => {
  const approval = (by: string, key = passkey, challengeOf = text) => ({
    by,
    email: `${by}@plant.example`,
    at: 1_780_000_100,
    decision_id: 'd_1',
    signature: {
      assertion: key.assertion(challengeOf),
      key: key.signing,
      relying_party: { id: 'gw.plant.example', origins: [ORIGIN] },
    },
  })
  const file = (
    approvals: SignedGrant['approvals'],
    more: Partial<SignedGrant> = {},
  ): SignedGrant => ({
    v: 1,
    statement,
    approvals,
    ...more,
  })
  const states = (grant: SignedGrant, pinned?: ReadonlyMap<string, string | null>) =>
    checkSignedGrant(grant, pinned).approvals.map(({ state, fault }) => fault ?? state)

  test('what is read is what was written', () => {
    const grant = file([approval('oda'), approval('olaf', another)])
    expect(readSignedGrant(JSON.parse(JSON.stringify(grant)))).toEqual(grant)
    expect(checkSignedGrant(grant).proven).toBe(true)
    expect(states(grant)).toEqual(['signed', 'signed'])
  })

  test('one passkey under two names counts once', () => {
    expect(states(file([approval('oda'), approval('olaf')]))).toEqual([
      'signed',
      'approver.repeated',
    ])
  })
  test('one person with two passkeys counts once', () => {
    const grant = file([approval('oda'), approval('oda', another)])
    expect(states(grant)).toEqual(['signed', 'approver.repeated'])
    expect(checkSignedGrant(grant).proven).toBe(false)
  })
  test('a key that nobody pinned', () => {
    const pinned = new Map([[another.signing.spki, null]])
    expect(states(file([approval('oda')]), pinned)).toEqual(['key.unpinned'])
  })
  test('one person with two keys under two accounts: the reader’s name counts, not the gateway’s', () => {
    const pinned = new Map([
      [passkey.signing.spki, 'Oda'],
      [another.signing.spki, 'Oda'],
    ])
    const grant = file([approval('oda'), approval('olaf', another)])
    expect(states(grant, pinned)).toEqual(['signed', 'approver.repeated'])
    expect(checkSignedGrant(grant, pinned).approvals.map(({ person }) => person)).toEqual([
      'Oda',
      null,
    ])
    expect([1, 2].map((quorum) => checkSignedGrant(grant, pinned, quorum).proven)).toEqual([
      true,
      false,
    ])
  })
  test('two people under one account name of the gateway’s are two, and no more', () => {
    const pinned = new Map([
      [passkey.signing.spki, 'Oda'],
      [another.signing.spki, 'Olaf'],
    ])
    const grant = file([approval('oda'), approval('oda', another)])
    const proof = (quorum: number) => checkSignedGrant(grant, pinned, quorum)
    expect([proof(2).people, proof(2).proven, proof(3).proven]).toEqual([2, true, false])
  })
  test('who must have signed is asked beyond what the file has', () => {
    const pinned = new Map([[passkey.signing.spki, 'Oda']])
    expect(checkSignedGrant(file([approval('oda')]), pinned).proven).toBe(true)
    expect(checkSignedGrant(file([approval('oda')]), pinned, 2).proven).toBe(false)
  })
  test('an approval of another grant', () => {
    const foreign = Buffer.from(randomBytes(32)).toString('base64url')
    expect(states(file([approval('oda', passkey, foreign)]))).toEqual(['assertion.challenge'])
  })
  test('nobody signed', () => {
    expect(checkSignedGrant(file([])).proven).toBe(false)
    const unsigned = { ...approval('oda'), signature: null }
    expect(checkSignedGrant(file([unsigned])).proven).toBe(false)
  })

  test('each member of the statement is signed', () => {
    for (const [name, value] of Object.entries(statement)) {
      const other =
        typeof value === 'number' ? value + 1 : value === null ? 'T-1' : `${String(value)}x`
      const changed = { ...statement, [name]: Array.isArray(value) ? [other] : other } as Statement
      expect(checkSignedGrant(file([approval('oda')], { statement: changed })).proven).toBe(false)
    }
  })

  test('a statement with a member more or less, or of another kind, is none', () => {
    for (const name of Object.keys(statement)) {
      const { [name as keyof Statement]: _, ...less } = statement
      expect(readStatement(less)).toBeUndefined()
      expect(readStatement({ ...statement, [name]: { deep: true } })).toBeUndefined()
    }
    expect(readStatement({ ...statement, more: 1 })).toBeUndefined()
    expect(readStatement({ ...statement, reason: 'x'.repeat(2001) })).toBeUndefined()
  })

  test('base64url has one spelling', () => {
    const { signature, ...rest } = passkey.assertion(text)
    expect(readAssertion({ ...rest, signature })).toBeDefined()
    for (const other of [`${signature}=`, `${signature}\n`, signature.replaceAll(/[-_]/g, '+'), ''])
      if (other !== signature) expect(readAssertion({ ...rest, signature: other })).toBeUndefined()
  })
})

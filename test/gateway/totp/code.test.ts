/** Codes of an authenticator app against RFC 6238, and what a person types. */
import { expect, test } from 'vitest'
import { newTotpSecret, readCode, stepOf, totpUri } from '../../../gateway/identity/totp/code.ts'

/** `12345678901234567890`, base 32: the secret of RFC 6238, appendix B. */
const SECRET = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ'

// Appendix B has eight digits; six are the last six of them (RFC 4226 5.3).
test.for([
  [59, '287082', 1],
  [1_111_111_109, '081804', 37_037_036],
  [1_111_111_111, '050471', 37_037_037],
  [1_234_567_890, '005924', 41_152_263],
  [2_000_000_000, '279037', 66_666_666],
  [20_000_000_000, '353130', 666_666_666],
] as const)('at %i s it is %s, of step %i', ([at, code, step]) => {
  expect(stepOf(SECRET, code, at * 1000)).toBe(step)
})

test('one step back and one ahead count, under their own numbers; two do not', () => {
  const at = 1_234_567_890_000
  const steps = [-2, -1, 0, 1, 2].map((off) => stepOf(SECRET, '005924', at - off * 30_000))
  expect(steps).toEqual([undefined, 41_152_263, 41_152_263, 41_152_263, undefined])
})

test.for([
  ['287082', '287082'],
  [' 287 082\n', '287082'],
  ['287-082', '287082'],
  ['28708', undefined],
  ['2870823', undefined],
  ['28708a', undefined],
  ['٢٨٧٠٨٢', undefined],
  ['', undefined],
  ['1'.repeat(10_000), undefined],
] as const)('typed %j: read as %j', ([typed, code]) => expect(readCode(typed)).toBe(code))

test('a secret has 160 bits, and no two are alike', () => {
  const [one, two] = [newTotpSecret(), newTotpSecret()]
  expect(one).toMatch(/^[A-Z2-7]{32}$/)
  expect(one).not.toBe(two)
})

test('the link names site, person and secret, and nothing in an address makes another', () => {
  const uri = new URL(totpUri(SECRET, 'gw.example', 'vera&secret=x@acme.example'))
  expect([uri.protocol, uri.host]).toEqual(['otpauth:', 'totp'])
  expect(decodeURIComponent(uri.pathname)).toBe('/Sallyport gw.example:vera&secret=x@acme.example')
  expect(Object.fromEntries(uri.searchParams)).toEqual({
    issuer: 'Sallyport gw.example',
    secret: SECRET,
    algorithm: 'SHA1',
    digits: '6',
    period: '30',
  })
})

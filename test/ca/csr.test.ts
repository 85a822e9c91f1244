/** PKCS#10 from other makers, with outcomes; and what a mutated request can do. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { CaError } from '#ca'
import { provePossession, readCsr } from '../../ca/csr.ts'
import { readGeneralNames, uriOf } from '../../ca/der/name.ts'
import { fuzz } from '../fuzz/csr.ts'

interface Vector {
  readonly name: string
  readonly base64: string
  readonly refused?: string
  readonly outcome?: {
    key: string
    common_name: string | null
    challenge: string | null
    uri: string | null
  }
}
const vectors = JSON.parse(
  readFileSync(new URL('../vectors/csr/openssl.json', import.meta.url), 'utf8'),
) as Vector[]

function outcomeOf(der: Uint8Array) {
  const csr = readCsr(der)
  provePossession(csr)
  const [uri] = csr.san === null ? [] : readGeneralNames(csr.san)
  return {
    key: csr.key.algorithm,
    common_name: csr.rdns[0]?.[0]?.text ?? null,
    challenge: csr.challengePassword,
    uri: uri === undefined ? null : (uriOf(uri) ?? null),
  }
}

test.for(vectors)('openssl: $name', ({ base64, refused, outcome }) => {
  const der = Uint8Array.fromBase64(base64)
  if (refused === undefined) expect(outcomeOf(der)).toEqual(outcome)
  else
    expect(() => outcomeOf(der)).toThrow(
      expect.objectContaining({ code: refused, fault: 'remote' }),
    )
})

test('every one of them with any one byte changed: refused with a code, or its signature is', () => {
  for (const { base64, refused } of vectors) {
    if (refused !== undefined) continue
    const der = Uint8Array.fromBase64(base64)
    const step = der.length > 400 ? 7 : 1
    for (let at = 0; at < der.length; at += step) {
      const changed = Uint8Array.from(der)
      changed[at]! ^= 1 << (at % 8)
      expect(() => provePossession(readCsr(changed))).toThrow(CaError)
    }
  }
})

test('5,000 mutations of the structure', async () => {
  expect(await fuzz({ cases: 5_000, seed: 1 })).toEqual({ cases: 5_000 })
}, 120_000)

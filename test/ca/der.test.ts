/** DER: what is read is written back byte for byte, and everything DER forbids is refused by position. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeBody, decodeOctets, encodeBody, encodePem } from '../../ca/der/base64.ts'
import { readCertificate } from '../../ca/der/certificate.ts'
import { readCertsOnly, writeCertsOnly } from '../../ca/der/cms.ts'
import { hasUnknownCritical } from '../../ca/der/extensions.ts'
import {
  readGeneralNames,
  sameGeneralNames,
  sameName,
  writeGeneralNames,
  writeCommonName,
  writeName,
  writeUri,
} from '../../ca/der/name.ts'
import { oid, OID, oidOf } from '../../ca/der/oid.ts'
import { readDer, TAG, type DerNode } from '../../ca/der/reader.ts'
import { decodeUtf8, encodeUtf8, textOf } from '../../ca/der/text.ts'
import {
  namedBits,
  sequence,
  setOf,
  smallInteger,
  time,
  tlv,
  unsignedInteger,
  utf8String,
} from '../../ca/der/writer.ts'

const hex = (text: string) => Uint8Array.fromHex(text.replace(/ /g, ''))
const file = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8'))

const refused: readonly (readonly [string, string, RegExp])[] = [
  ['nothing', '', /missing at byte 0/],
  ['a tag alone', '30', /length is missing at byte 1/],
  ['bytes after the value', '0500 00', /after the value at byte 2/],
  ['a value cut short', '0402 00', /cut short at byte 1/],
  ['a child longer than its parent', '3003 0402 00', /cut short at byte 3/],
  ['a length cut short', '0482 01', /cut short at byte 1/],
  ['an indefinite length', '3080 0000', /form DER does not have at byte 1/],
  ['the reserved length', '04ff', /form DER does not have/],
  ['a length of five octets', '0485 0000000001 00', /form DER does not have/],
  ['81 below 128', `0481 01 00`, /not minimal at byte 1/],
  ['82 below 256', `0482 0001 00`, /not minimal/],
  ['a multi-byte tag', '1f8101 00', /tag out of range/],
  ['end-of-contents', '0000', /tag out of range/],
  ['a primitive SEQUENCE', '1000', /form DER does not have/],
  ['a constructed OCTET STRING', '2403 040100', /form DER does not have/],
  ['BOOLEAN 01', '010101', /not canonical/],
  ['BOOLEAN of two octets', '0102ffff', /not canonical/],
  ['an empty INTEGER', '0200', /not canonical/],
  ['INTEGER 00 01', '02020001', /not canonical/],
  ['INTEGER ff ff', '0202ffff', /not canonical/],
  ['NULL with a value', '050100', /not canonical/],
  ['BIT STRING without its count', '0300', /not canonical/],
  ['BIT STRING with 8 unused bits', '03020800', /not canonical/],
  ['BIT STRING with a padding bit set', '03020101', /not canonical/],
  ['BIT STRING of nothing with unused bits', '030101', /not canonical/],
  ['an empty OID', '0600', /not canonical/],
  ['an OID cut short', '060188', /not canonical/],
  ['a BMPString of three octets', '1e03000041', /not canonical/],
  ['a UniversalString of six octets', '1c06000000410000', /not canonical/],
  ['an OID arc with leading zeros', '06038001 01', /not canonical/],
]
test.for(refused)('$0 is refused', ([, bytes, reason]) => {
  expect(() => readDer(hex(bytes))).toThrow(reason)
})

test('lengths around 127, 128, 255, 256 and 65535 are minimal both ways', () => {
  for (const length of [0, 1, 126, 127, 128, 129, 254, 255, 256, 257, 65_535, 65_536]) {
    const bytes = tlv(TAG.octetString, new Uint8Array(length))
    expect(readDer(bytes).value.length).toBe(length)
  }
})

test('depth and number of values are bounded', () => {
  const nest = (depth: number): Uint8Array => (depth === 1 ? sequence() : sequence(nest(depth - 1)))
  expect(readDer(nest(16)).children).toHaveLength(1)
  expect(() => readDer(nest(17))).toThrow('nested too deeply')
  const many = (count: number) => sequence(...Array.from({ length: count }, () => smallInteger(1)))
  expect(readDer(many(511)).children).toHaveLength(511)
  expect(() => readDer(many(512))).toThrow('too many values')
})

function write(node: DerNode): Uint8Array {
  return node.children.length > 0
    ? tlv(node.tag, ...node.children.map(write))
    : tlv(node.tag, node.value)
}

test('what parses re-encodes to the same bytes', () => {
  const leaf = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((value) => tlv(TAG.octetString, value)),
    fc.uint8Array({ minLength: 1, maxLength: 20 }).map(unsignedInteger),
    fc.string({ maxLength: 40 }).map(utf8String),
    fc.constant(oid('1.2.840.113549.1.9.14')),
  )
  const tree = fc.letrec<{ node: Uint8Array }>((tie) => ({
    node: fc.oneof(
      { depthSize: 'small' },
      leaf,
      fc.array(tie('node'), { maxLength: 5 }).map((parts) => sequence(...parts)),
      fc.array(tie('node'), { maxLength: 5 }).map((parts) => setOf(...parts)),
    ),
  })).node
  fc.assert(
    fc.property(tree, (bytes) => {
      expect(write(readDer(bytes, { depth: 64, nodes: 100_000 }))).toEqual(bytes)
    }),
  )
  for (const folder of ['csr/openssl.json', 'certificates/openssl.json'])
    for (const { base64 } of file(folder) as { base64: string }[]) {
      const bytes = Uint8Array.fromBase64(base64)
      expect(write(readDer(bytes))).toEqual(bytes)
    }
})

test('any bytes: read or refused, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        expect(write(readDer(bytes))).toEqual(bytes)
      } catch (error) {
        expect((error as Error).name).toBe('DerError')
      }
    }),
    { numRuns: 2_000 },
  )
})

test('object identifiers both ways', () => {
  for (const dotted of ['0.9', '1.2.840.113549', '2.5.4.3', '2.999.1', '1.3.6.1.4.1.9007199254740'])
    expect(oidOf(readDer(oid(dotted)), 'it')).toBe(dotted)
  for (const dotted of Object.values(OID)) {
    expect(oidOf(readDer(oid(dotted)), 'it')).toBe(dotted)
    // Of the same length and the same last octet, and not that one.
    const other = Uint8Array.from(oid(dotted))
    other[other.length - 2]! ^= 1
    if (other.length > 4) expect(oidOf(readDer(other), 'it')).not.toBe(dotted)
  }
  expect(() =>
    oidOf(readDer(tlv(TAG.oid, Uint8Array.of(...Array.from({ length: 9 }, () => 0xff), 1))), 'it'),
  ).toThrow('out of range')
  expect(() => oid('3')).toThrow('not an object identifier')
})

test('UTF-8 is what TextEncoder makes of it; malformed is refused where TextDecoder refuses', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(encodeUtf8(text)).toEqual(new TextEncoder().encode(text))
      expect(decodeUtf8(encodeUtf8(text))).toBe(text.toWellFormed())
    }),
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 8 }), (bytes) => {
      const decode = (run: () => string) => {
        try {
          return run()
        } catch {
          return undefined
        }
      }
      const reference = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
      expect(decode(() => decodeUtf8(bytes))).toBe(decode(() => reference.decode(bytes)))
    }),
    { numRuns: 2_000 },
  )
})

const strings: readonly (readonly [string, number, string, string | null])[] = [
  ['PrintableString', TAG.printable, '41 42', 'AB'],
  ['PrintableString with @', TAG.printable, '40', null],
  ['IA5String above 7f', TAG.ia5, '80', null],
  ['NumericString', TAG.numeric, '31 20', '1 '],
  ['NumericString with a letter', TAG.numeric, '41', null],
  ['TeletexString', TAG.teletex, 'e4', 'ä'],
  ['BMPString', TAG.bmp, '0041 20ac', 'A€'],
  ['BMPString cut short', TAG.bmp, '00', null],
  ['BMPString surrogate', TAG.bmp, 'd800', null],
  ['UniversalString', TAG.universal, '0001f600', '😀'],
  ['UniversalString too high', TAG.universal, '00110000', null],
]
test.for(strings)('$0', ([, tag, bytes, text]) => {
  const read = () => textOf(readDer(tlv(tag, hex(bytes))))
  if (text === null) expect(read).toThrow(expect.objectContaining({ name: 'DerError' }))
  else expect(read()).toBe(text)
})

const asOctets = (body: string) => decodeOctets(Buffer.from(body, 'latin1'))

describe('bodies', () => {
  const bytes = Uint8Array.from({ length: 200 }, (_, i) => i)
  test('are read in any folding and written in one', () => {
    const text = Buffer.from(bytes).toString('base64')
    for (const body of [
      text,
      `${text}\n\n`,
      text.replace(/.{76}/g, '$&\r\n'),
      encodePem('X', bytes),
    ])
      for (const read of [decodeBody, asOctets]) expect(read(body)).toEqual(bytes)
    expect(encodeBody(bytes)).toBe(`${text.replace(/.{64}/g, '$&\n')}\n`)
    expect(encodeBody(bytes.subarray(0, 48))).toBe(`${text.slice(0, 64)}\n`)
  })
  const bad = [
    '',
    ' ',
    'A',
    'AA',
    'AAA',
    'AB==',
    'AAAA=',
    'A-_A',
    'AA=A',
    'AAAA\u00a0',
    'AAAA\f',
    '====',
    '{"a":1}',
  ]
  test.for(bad)('%j is not base64', (body) => {
    for (const read of [decodeBody, asOctets]) expect(read(body)).toBeUndefined()
  })
  test('as octets and as text they are the same body, or neither is one', () => {
    const piece = fc.constantFrom(
      'A',
      'Qg',
      '/w',
      'AAAA',
      'zzz',
      '=',
      '==',
      ' ',
      '\n',
      '\t\r',
      '\f',
      '-',
    )
    const whole = fc.uint8Array({ maxLength: 40 }).map((each) => each.toBase64())
    fc.assert(
      fc.property(fc.array(fc.oneof(piece, whole), { maxLength: 6 }), (parts) => {
        expect(asOctets(parts.join(''))).toEqual(decodeBody(parts.join('')))
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('certificates', () => {
  interface Vector {
    readonly name: string
    readonly base64: string
    readonly refused?: string
    readonly outcome?: {
      serial: string
      not_before: number
      not_after: number
      extensions: string[]
    } | null
  }
  test.for(file('certificates/openssl.json') as Vector[])('$name', (vector) => {
    const der = Uint8Array.fromBase64(vector.base64)
    if (vector.refused !== undefined) {
      expect(() => readCertificate(der)).toThrow(vector.refused)
      return
    }
    const read = readCertificate(der)
    if (vector.outcome === null || vector.outcome === undefined) return
    const { serial, notBefore, notAfter, extensions } = read
    const oids = extensions.map((each) => each.oid)
    expect({ serial, not_before: notBefore, not_after: notAfter, extensions: oids }).toEqual(
      vector.outcome,
    )
  })
  test('certs-only, as openssl writes it and as we do', () => {
    const vector = file('certificates/certs-only.json') as {
      base64: string
      certificates: string[]
    }
    const wanted = vector.certificates.map((each) => Uint8Array.fromBase64(each))
    expect(readCertsOnly(Uint8Array.fromBase64(vector.base64))).toEqual(wanted)
    expect(readCertsOnly(writeCertsOnly(wanted))).toEqual(wanted)
  })
})

describe('names', () => {
  const name = (text: string, type: 'commonName' | 'serialNumber' = 'commonName') =>
    writeName([{ type, text }])
  test('RFC 5280 7.1: case, inner spaces and string type do not matter; everything else does', () => {
    expect(sameName(name('Press  07 '), name('press 07'))).toBe(true)
    expect(sameName(name('A', 'serialNumber'), name('A'))).toBe(false)
    expect(sameName(name('press-07'), name('press-08'))).toBe(false)
    expect(sameName(name('a'), sequence())).toBe(false)
    expect(sameName(sequence(), sequence())).toBe(true)
  })
  test('the usual name and the usual SAN are what the general way writes, at any length', () => {
    for (let length = 1; length < 300; length++) {
      const [text, uri] = ['x'.repeat(length), 'u'.repeat(length)]
      expect(writeCommonName(text)).toEqual(name(text))
      expect(writeUri('a:', uri)).toEqual(writeGeneralNames([{ kind: 'uri', text: `a:${uri}` }]))
    }
    expect(() => writeCommonName('é')).toThrow('not ASCII')
    expect(() => writeUri('a:', 'é')).toThrow('not ASCII')
  })
  test('a SAN is a set', () => {
    const [a, b] = [
      { kind: 'dns', text: 'a' },
      { kind: 'dns', text: 'b' },
    ] as const
    expect(sameGeneralNames(writeGeneralNames([a, b]), writeGeneralNames([b, a]))).toBe(true)
    expect(sameGeneralNames(writeGeneralNames([a, a]), writeGeneralNames([a]))).toBe(false)
    expect(() => readGeneralNames(sequence())).toThrow('empty')
    expect(() => readGeneralNames(sequence(smallInteger(1)))).toThrow('no known kind')
  })
})

test('times: UTCTime to 2049, GeneralizedTime from 2050', () => {
  expect(Buffer.from(time(Date.UTC(2049, 11, 31, 23, 59, 59))).toString('latin1')).toBe(
    '\x17\r491231235959Z',
  )
  expect(Buffer.from(time(Date.UTC(2050, 0, 1))).toString('latin1')).toBe('\x18\x0f20500101000000Z')
  expect(Buffer.from(time(0)).toString('latin1')).toBe('\x17\r700101000000Z')
})

test('named bits lose their trailing zeros', () => {
  expect(namedBits(0).toHex()).toBe('03020780')
  expect(namedBits(5, 6).toHex()).toBe('03020106')
  expect(namedBits(8).toHex()).toBe('0303070080')
})

describe('critical extensions, by one list for every chain', () => {
  const of = (id: string, critical: boolean) => ({
    oid: id,
    critical,
    value: new Uint8Array(),
    bytes: new Uint8Array(),
  })
  const known = ['keyUsage', 'basicConstraints', 'extendedKeyUsage', 'subjectAltName'] as const
  const passed = ['subjectKeyIdentifier', 'authorityKeyIdentifier', 'certificatePolicies'] as const
  test.for([...known, ...passed])('%s is understood', (name) => {
    expect(hasUnknownCritical([of(OID[name], true)])).toBe(false)
  })

  test('name constraints only by who judges them', () => {
    const limits = [of(OID.nameConstraints, true)]
    expect(hasUnknownCritical(limits)).toBe(true)
    expect(hasUnknownCritical(limits, [OID.nameConstraints])).toBe(false)
  })

  test.for(['2.5.29.36', '2.5.29.54', '1.3.6.1.5.5.7.1.14'])('%s ends a chain', (unknown) => {
    expect(hasUnknownCritical([of(unknown, true)])).toBe(true)
    expect(hasUnknownCritical([of(unknown, false)])).toBe(false)
  })
})

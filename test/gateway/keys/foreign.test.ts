/** An issuing CA of another root is brought along, or refused for what it is. */
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { rotate } from '../../../gateway/keys/acts.ts'
import { importIssuing, requestSubordinate } from '../../../gateway/keys/bring.ts'
import { describeCa } from '../../../gateway/keys/status.ts'
import { at, DAY, eachRow, here, made, openssl, start, state } from './place.ts'

eachRow()

describe('a CA of another root', () => {
  interface Foreign {
    readonly root?: string
    readonly between?: string
    readonly issuing?: string
    readonly key?: readonly string[]
    readonly days?: string
    readonly hash?: string
    readonly signer?: 'between' | 'stranger'
  }
  const CA_EXTENSIONS = 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n'
  const IDS = 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'

  /** root -> between -> issuing, each as the recipe says; gives the chain, issuing first. */
  function foreign(recipe: Foreign = {}, csr?: string): string {
    const sign = (
      name: string,
      by: string,
      extensions: string,
      days = '3650',
      hash = '-sha256',
    ) => {
      writeFileSync(at(`${name}.ext`), extensions)
      const signer = ['-CA', `${by}.crt`, '-CAkey', `${by}.key`, '-set_serial', '7']
      const how = ['-days', days, hash, '-extfile', `${name}.ext`, '-out', `${name}.crt`]
      openssl('x509', '-req', '-in', `${name}.csr`, ...signer, ...how)
    }
    /** A key and a request for it. */
    const keyed = (name: string, subject: string) => {
      const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
      const out = ['-keyout', `${name}.key`, '-out', `${name}.csr`]
      openssl('req', '-new', ...curve, '-subj', subject, ...out)
    }
    keyed('root', '/O=Plant/CN=Plant Root')
    writeFileSync(at('root.ext'), recipe.root ?? CA_EXTENSIONS + 'subjectKeyIdentifier=hash\n')
    const own = ['-signkey', 'root.key', '-days', '3650', '-extfile', 'root.ext']
    openssl('x509', '-req', '-in', 'root.csr', ...own, '-out', 'root.crt')
    keyed('between', '/O=Plant/CN=Plant Policy CA')
    sign('between', 'root', recipe.between ?? CA_EXTENSIONS + IDS)
    const edge = '/O=Plant/CN=Plant Edge CA'
    if (csr !== undefined) writeFileSync(at('issuing.csr'), csr)
    else if (recipe.key === undefined) keyed('issuing', edge)
    else {
      openssl('genpkey', ...recipe.key, '-out', 'issuing.key')
      openssl('req', '-new', '-key', 'issuing.key', '-subj', edge, '-out', 'issuing.csr')
    }
    if (recipe.signer === 'stranger') {
      keyed('stranger', '/O=Plant/CN=Plant Policy CA')
      const x509 = ['-x509', '-key', 'stranger.key', '-subj', '/O=Plant/CN=Plant Policy CA']
      openssl('req', '-new', ...x509, '-days', '100', '-out', 'stranger.crt')
    }
    sign(
      'issuing',
      recipe.signer ?? 'between',
      recipe.issuing ??
        'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n' +
          IDS,
      recipe.days,
      recipe.hash,
    )
    // Their dates are openssl's; ours must not be before them.
    here.clock = Date.now() + 1_000
    return ['issuing', 'between', 'root']
      .map((name) => readFileSync(at(`${name}.crt`), 'utf8'))
      .join('')
  }
  const key = (name = 'issuing') => ({ pem: readFileSync(at(`${name}.key`), 'utf8') })

  test('chain and key: a fresh node issues under it, and serves the whole chain', async () => {
    const chain = foreign()
    await importIssuing(here.room, { chain, key: key() })
    const { authority, said } = await start()
    expect(said).toMatch(/issuing CA of another root imported/)
    expect(authority.issuers.active.x509.subject).toMatch(/Plant Edge CA/)
    expect(authority.issuers.active.above).toHaveLength(1)
    expect(describeCa(here.room, state()!).roots[0]?.key).toBe('elsewhere')
    await expect(rotate(here.room, {})).rejects.toMatchObject({ code: 'ca.root_away' })
  })

  test('a request to a CA above: the key never leaves, the gateway waits and says so', async () => {
    const csr = await requestSubordinate(here.room)
    expect(await requestSubordinate(here.room)).toBe(csr)
    await expect(start()).rejects.toMatchObject({
      code: 'ca.waiting',
      message: expect.stringMatching(/sallyport ca import --chain/) as string,
    })
    await importIssuing(here.room, { chain: foreign({}, csr) })
    expect((await start()).authority.issuers.active.x509.issuer).toMatch(/Plant Policy CA/)
    expect(state()?.requested).toBeNull()
  })

  test('beside a CA of our own it waits like any other', async () => {
    await made()
    await importIssuing(here.room, { chain: foreign(), key: key() })
    const { authority } = await start()
    expect(authority.issuers.active.x509.subject).toMatch(/Sallyport issuing CA/)
    expect(authority.issuers.all).toHaveLength(2)
    here.clock += 3 * DAY
    await authority.refresh()
    expect(authority.issuers.active.x509.subject).toMatch(/Plant Edge CA/)
    expect(authority.rootPem).toBe(new X509Certificate(readFileSync(at('root.crt'))).toString())
  })

  test('a sealed key wants its passphrase', async () => {
    const chain = foreign()
    openssl(
      'pkcs8',
      '-topk8',
      '-in',
      'issuing.key',
      '-out',
      'sealed.key',
      '-passout',
      'pass:secret',
    )
    const sealed = key('sealed')
    await expect(importIssuing(here.room, { chain, key: sealed })).rejects.toMatchObject({
      code: 'key.unreadable',
    })
    await expect(
      importIssuing(here.room, { chain, key: { ...sealed, passphrase: 'no' } }),
    ).rejects.toMatchObject({ code: 'key.passphrase' })
    await importIssuing(here.room, { chain, key: { ...sealed, passphrase: 'secret' } })
  })

  const ISSUING = 'basicConstraints=critical,CA:TRUE,pathlen:0\n'
  const KU = 'keyUsage=critical,keyCertSign,cRLSign\n'
  const refused: readonly (readonly [string, Foreign & { otherKey?: true }, RegExp])[] = [
    ['signed by a stranger of the same name', { signer: 'stranger' }, /signed by the next/],
    [
      'no CA',
      { issuing: 'basicConstraints=critical,CA:FALSE\n' + KU + IDS },
      /says CA, critically/,
    ],
    [
      'basic constraints not critical',
      { issuing: 'basicConstraints=CA:TRUE\n' + KU + IDS },
      /says CA, critically/,
    ],
    [
      'path length exceeded',
      { between: 'basicConstraints=critical,CA:TRUE,pathlen:0\n' + KU + IDS },
      /no path length/,
    ],
    [
      'may not sign CRLs',
      { issuing: ISSUING + 'keyUsage=critical,keyCertSign\n' + IDS },
      /certificates and CRLs/,
    ],
    [
      'may not sign certificates',
      { issuing: ISSUING + 'keyUsage=critical,cRLSign\n' + IDS },
      /certificates and CRLs/,
    ],
    [
      'no subject key identifier',
      { issuing: ISSUING + KU + 'subjectKeyIdentifier=none\nauthorityKeyIdentifier=keyid\n' },
      /subject key identifier/,
    ],
    ['another private key', { otherKey: true }, /private key is the key/],
    [
      'an RSA key',
      { key: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'] },
      /keys and signatures are strong/,
    ],
    ['signed with SHA-1', { hash: '-sha1' }, /keys and signatures are strong/],
    ['ends in 20 days', { days: '20' }, /30 days more/],
    [
      'for e-mail only',
      { issuing: ISSUING + KU + IDS + 'extendedKeyUsage=emailProtection\n' },
      /extended key usage/,
    ],
    [
      'for any purpose, which is none of TLS to OpenSSL',
      { issuing: ISSUING + KU + IDS + 'extendedKeyUsage=anyExtendedKeyUsage\n' },
      /extended key usage/,
    ],
    [
      'another tenant by URI constraint',
      { issuing: ISSUING + KU + IDS + 'nameConstraints=critical,permitted;URI:.other.example\n' },
      /name constraints/,
    ],
    [
      'DNS names elsewhere',
      { between: CA_EXTENSIONS + IDS + 'nameConstraints=critical,permitted;DNS:other.example\n' },
      /name constraints/,
    ],
    [
      'loopback excluded',
      {
        issuing: ISSUING + KU + IDS + 'nameConstraints=critical,excluded;IP:127.0.0.0/255.0.0.0\n',
      },
      /name constraints/,
    ],
    [
      'an unknown critical extension',
      { issuing: ISSUING + KU + IDS + '1.2.3.4=critical,ASN1:NULL\n' },
      /no critical extension/,
    ],
  ]
  test.for(refused)('refused: %s', async ([, { otherKey, ...recipe }, says]) => {
    const chain = foreign(recipe)
    const given = otherKey === true ? key('between') : key()
    await expect(importIssuing(here.room, { chain, key: given })).rejects.toMatchObject({
      code: 'ca.refused',
      message: expect.stringMatching(says) as string,
    })
    expect(state()).toBeUndefined()
  })

  test('the same CA twice, a chain of one, no chain', async () => {
    const chain = foreign()
    await importIssuing(here.room, { chain, key: key() })
    await expect(importIssuing(here.room, { chain, key: key() })).rejects.toMatchObject({
      code: 'ca.refused',
    })
    const alone = readFileSync(at('issuing.crt'), 'utf8')
    for (const short of [alone, ''])
      await expect(importIssuing(here.room, { chain: short, key: key() })).rejects.toThrow(
        /at least two/,
      )
  })

  test('constraints that allow our names are no obstacle', async () => {
    const constraints =
      'nameConstraints=critical,permitted;URI:main.sallyport.internal,permitted;DNS:localhost,permitted;IP:127.0.0.0/255.0.0.0,permitted;IP:0:0:0:0:0:0:0:1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n'
    await importIssuing(here.room, {
      chain: foreign({ issuing: ISSUING + KU + IDS + constraints }),
      key: key(),
    })
    expect((await start()).authority.issuers.active.x509.subject).toMatch(/Plant Edge CA/)
  })
})

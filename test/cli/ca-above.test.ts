/** `sallyport ca` under a CA above: the request, its answer, and what of an answer is refused. */
import { readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { at, ca, complaint, eachRow, from, json, openssl } from './ca-place.ts'

eachRow()

describe('a CA above', () => {
  test('a request, what it is for, and the same request again', async () => {
    const ran = await ca('init', '--subordinate')
    expect(ran.code).toBe(0)
    expect(ran.err).toContain('sallyport ca import --chain FILE')
    writeFileSync(at('request.pem'), ran.out)
    expect(openssl('req', '-in', 'request.pem', '-noout', '-verify', '-subject')).toContain(
      'Sallyport issuing CA',
    )
    expect((await ca('init', '--subordinate')).out).toBe(ran.out)
    expect((await json('init', '--subordinate')).value).toEqual({ csr: ran.out })
    const { out } = await ca('status')
    expect(out).toContain('no certificate yet')
    expect(out).toContain('next: bring the answer of the CA above')
    for (const verb of ['rotate', 'export-root'])
      expect(
        complaint(
          await ca(
            verb,
            ...(verb === 'rotate' ? [] : ['--to', at('x.pem'), '--passphrase-file', at('pass')]),
          ),
        ),
      ).toMatchObject({
        exit: 1,
        code: 'ca.waiting',
        next: expect.stringContaining('ca import'),
      })
  })

  function answer(days = '365'): void {
    openssl(
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-384',
      '-nodes',
      '-keyout',
      'above.key',
      '-out',
      'above.pem',
      '-subj',
      '/CN=Above',
      '-days',
      '3650',
      '-addext',
      'keyUsage=critical,keyCertSign,cRLSign',
    )
    writeFileSync(
      at('ext'),
      'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n',
    )
    openssl(
      'x509',
      '-req',
      '-in',
      'request.pem',
      '-CA',
      'above.pem',
      '-CAkey',
      'above.key',
      '-out',
      'issuing.pem',
      '-days',
      days,
      '-extfile',
      'ext',
    )
    writeFileSync(
      at('chain.pem'),
      openssl('x509', '-in', 'issuing.pem') + openssl('x509', '-in', 'above.pem'),
    )
  }

  test('its answer: the node issues under it, and its root key was never here', async () => {
    await from('asked')
    answer()
    const ran = await ca('import', '--chain', at('chain.pem'))
    expect(ran.code, ran.err).toBe(0)
    expect(ran.out).toMatch(/^issuing-[0-9a-f]{8}\.crt is served from now on and signs from 2/)
    expect((await ca('status')).out).toMatch(/^root +CN=Above .* elsewhere$/m)
    const away = complaint(
      await ca('export-root', '--to', at('x.pem'), '--passphrase-file', at('pass')),
    )
    expect(away).toMatchObject({ exit: 1, code: 'ca.exported' })
    expect(complaint(await ca('rotate'))).toMatchObject({
      exit: 1,
      code: 'ca.root_away',
      next: expect.stringContaining('--subordinate'),
    })
    const again = complaint(await ca('import', '--chain', at('chain.pem')))
    expect(again).toMatchObject({ exit: 1, code: 'ca.absent' })
  })

  test('beside a CA of our own it waits; as JSON with the second it begins', async () => {
    await from('made')
    writeFileSync(at('request.pem'), (await ca('init', '--subordinate')).out)
    answer()
    const { value } = await json('import', '--chain', at('chain.pem'))
    expect(value['active_from']).toBeGreaterThan(Date.now() / 1_000 + 71 * 3_600)
    expect((await ca('status')).out).toMatch(/^next, from 2.*CN=Sallyport issuing CA/m)
  })

  const wrong = [
    ['an answer that ends too soon', 'chain.pem', '10', [], 2, 'ca.refused'],
    ['the issuing CA without its root', 'issuing.pem', '365', [], 2, 'ca.refused'],
    ['no certificates at all', 'ext', '365', [], 2, 'ca.refused'],
    ['a file that is not there', 'none.pem', '365', [], 2, 'usage'],
    ['the key of another', 'chain.pem', '365', ['--key', 'above.key'], 2, 'ca.refused'],
    ['a key that is none', 'chain.pem', '365', ['--key', 'ext'], 2, 'key.unreadable'],
    [
      'a key in a token that nobody configured',
      'chain.pem',
      '365',
      ['--pkcs11', 'k'],
      1,
      'hsm.key',
    ],
  ] as const
  test.for(wrong)('%s', async ([, chain, days, args, exit, code]) => {
    await from('asked')
    answer(days)
    const given = args.map((each) => (each.startsWith('--') || each === 'k' ? each : at(each)))
    const before = readFileSync(at('node', 'ca', 'state.json'), 'utf8')
    const said = complaint(await ca('import', '--chain', at(chain), ...given))
    expect(said).toMatchObject({ exit, code })
    expect(readFileSync(at('node', 'ca', 'state.json'), 'utf8')).toBe(before)
  })

  test('of which certificate it is not so, since when, and what would help', async () => {
    await from('asked')
    answer('10')
    const bring = async (...args: string[]) => await ca('import', '--chain', ...args)
    const soon = await bring(at('chain.pem'))
    expect(soon.err).toMatch(
      /not so: all are in date, .*\(O=[^:]*CN=Sallyport issuing CA[^:]*: 2\d{3}-\d\d-\d\d to 2\d{3}-\d\d-\d\d\)$/m,
    )
    answer()
    const other = await bring(at('chain.pem'), '--key', at('above.key'))
    expect(other.err).toMatch(
      /the private key is the key of the issuing CA \(O=.*CN=Sallyport issuing CA/,
    )
    expect(complaint(other).next).toMatch(/^bring the key of that certificate/)
    const [issuing = '', root = ''] = readFileSync(at('chain.pem'), 'utf8').split(
      /(?<=END CERTIFICATE-----\n)/,
    )
    writeFileSync(at('turned.pem'), root + issuing)
    const turned = await bring(at('turned.pem'))
    expect(turned.err).toContain('this chain begins with its root')
    expect(complaint(turned).next).toMatch(/^turn the file round/)
    expect((await bring(at('chain.pem'))).code).toBe(0)
  })
})

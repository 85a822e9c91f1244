/** Where a connection comes from, also when it is gone before anybody asks. */
import { expect, test } from 'vitest'
import { tlsOf } from '../../../gateway/access/source.ts'

test.for<[string, object | null | undefined, string | null]>([
  ['alive', { standardName: 'TLS_AES_128_GCM_SHA256' }, 'TLS_AES_128_GCM_SHA256'],
  ['destroyed: no cipher, and no exception', null, null],
  ['never shaken hands', undefined, null],
])('%s', ([, cipher, name]) => {
  const socket = { getProtocol: () => null, getCipher: () => cipher as never }
  expect(tlsOf(socket)).toEqual({ version: null, cipher: name })
})

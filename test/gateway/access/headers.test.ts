/** What a forwarder passes on, both ways. */
import { describe, expect, test } from 'vitest'
import { requestHeaders, responseHeaders } from '../../../gateway/access/headers.ts'

describe('towards the device', () => {
  test.for([
    {
      name: 'hop-by-hop',
      raw: [
        'Connection',
        'keep-alive',
        'Keep-Alive',
        'x',
        'TE',
        'trailers',
        'Upgrade',
        'h2c',
        'X-A',
        '1',
      ],
    },
    {
      name: 'what Connection names',
      raw: ['Connection', 'X-Internal, close', 'X-Internal', 'secret', 'X-A', '1'],
    },
    {
      name: 'Transfer-Encoding, because the body is framed anew',
      raw: ['Transfer-Encoding', 'chunked', 'X-A', '1'],
    },
    {
      name: 'Expect, because nobody may wait for a 100',
      raw: ['Expect', '100-continue', 'X-A', '1'],
    },
    { name: 'a length that was not parsed', raw: ['Content-Length', '5', 'X-A', '1'] },
    {
      name: 'claims about who was forwarded',
      raw: ['X-Forwarded-For', '10.0.0.1', 'Forwarded', 'for=x', 'X-A', '1'],
    },
    { name: 'our own cookie', raw: ['Cookie', '__Host-sallyport-app=secret', 'X-A', '1'] },
  ])('drops $name', ({ raw }) => {
    expect(requestHeaders(raw, null)).toEqual(['X-A', '1'])
  })

  test('Connection cannot make us drop what the two ends need', () => {
    const raw = ['Host', 'a', 'Connection', 'Host, Cookie, Content-Length', 'Cookie', 'theirs=1']
    expect(requestHeaders(raw, '3')).toEqual([
      'Host',
      'a',
      'Cookie',
      'theirs=1',
      'content-length',
      '3',
    ])
  })

  test('keeps the cookies of the app, in order, duplicates too', () => {
    expect(
      requestHeaders(['Cookie', 'a=1; __Host-sallyport-app=x; b=2', 'X-A', '1', 'X-A', '2'], null),
    ).toEqual(['Cookie', 'a=1; b=2', 'X-A', '1', 'X-A', '2'])
  })
})

describe('towards the browser', () => {
  test('a cookie loses its Domain and keeps the rest', () => {
    expect(
      responseHeaders(['Set-Cookie', 'a=1; Domain=apps.localhost; Path=/; HttpOnly', 'X-A', '1']),
    ).toEqual(['Set-Cookie', 'a=1; Path=/; HttpOnly', 'X-A', '1'])
  })
  test.for([
    ['Set-Cookie', '__Host-sallyport-app=theirs; Path=/; Secure'],
    ['Connection', 'close'],
    ['Transfer-Encoding', 'chunked'],
  ])('drops %s: %s', ([name, value]) => {
    expect(responseHeaders([name ?? '', value ?? ''])).toEqual([])
  })
})

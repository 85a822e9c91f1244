/** The request log of a web session: what was asked, and nothing of what was said. */
import { expect, test } from 'vitest'
import { queryNames, webLine, type WebRequest } from '../../../audit/recording/weblog.ts'

const request: WebRequest = {
  at: 1_750_000_000_000,
  endedAt: 1_750_000_000_250,
  session: 's_1',
  device: 'press-07',
  process: 'hmi',
  method: 'POST',
  host: 'hmi--press-07.apps.localhost',
  target: '/login?user=vera&password=hunter2&flag#top',
  ip: '192.0.2.7',
  user: 'https://idp.example|vera',
  status: 303,
  requestType: 'multipart/form-data; boundary=secret-boundary',
  responseType: 'text/html; charset=utf-8',
  bytesIn: 31,
  bytesOut: 0,
  upgraded: undefined,
  decision: 'd_1',
  code: undefined,
}
const line = (change: Partial<WebRequest> = {}) => {
  const text = new TextDecoder().decode(webLine({ ...request, ...change }))
  expect(text.endsWith('\n') && !text.slice(0, -1).includes('\n')).toBe(true)
  return { text, value: JSON.parse(text) as Record<string, unknown> }
}

test('a request is one OCSF HTTP activity', () => {
  const { value } = line()
  expect(value).toMatchObject({
    class_uid: 4002,
    category_uid: 4,
    activity_id: 6,
    type_uid: 400_206,
    time: request.at,
    duration: 250,
    http_request: {
      http_method: 'POST',
      url: { hostname: request.host, path: '/login', query_string: 'user=&password=&=' },
      content_type: 'multipart/form-data',
    },
    http_response: { code: 303, content_type: 'text/html' },
    traffic: { bytes_in: 31, bytes_out: 0 },
    metadata: { version: '1.8.0', correlation_uid: 's_1' },
  })
})

test('no value of a query, no fragment, no parameter of a media type stands in it', () => {
  const { text } = line()
  for (const secret of ['hunter2', 'vera&', 'flag', '#top', 'secret-boundary', 'charset'])
    expect(text).not.toContain(secret)
})

test.for<[string, string]>([
  ['a=1&b=2', 'a=&b='],
  ['token', '='],
  ['', ''],
  ['=secret', '='],
  ['a=b=c', 'a='],
  [`${'n'.repeat(500)}=v`, `${'n'.repeat(128)}=`],
])('of the query %s the names %s are kept', ([query, names]) => {
  expect(queryNames(query)).toBe(names)
})

test('a request that got no answer says why; an unknown method has a name', () => {
  const { value } = line({ status: undefined, code: 'app.upstream', method: 'PROPFIND' })
  expect(value).toMatchObject({
    status_id: 2,
    status_code: 'app.upstream',
    activity_id: 99,
    activity_name: 'PROPFIND',
  })
  expect(value).not.toHaveProperty('http_response')
})

test('a long path is bounded', () => {
  expect(line({ target: `/${'a'.repeat(100_000)}` }).text.length).toBeLessThan(4_000)
})

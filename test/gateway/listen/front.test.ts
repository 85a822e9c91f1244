/** Who answers a request on the one port: by host, by path, in either form of a target. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { expect, test } from 'vitest'
import { dispatch, type Handler } from '../../../gateway/listen/front.ts'

/** What became of a request for `url` at `host`: who got it, with which target, or the status. */
function asked(url: string, host: string): readonly [string, string] {
  let came: readonly [string, string] = ['nobody', '']
  const to =
    (name: string): Handler =>
    (request) => {
      came = [name, request.url ?? '']
    }
  const answer = {
    writeHead(status: number) {
      came = [String(status), '']
      return answer
    },
    end: () => answer,
  }
  const open = { est: to('est'), revocation: to('revocation'), agent: to('agent') }
  const front = { ...open, oidc: to('oidc'), api: to('api') }
  const handle = dispatch({ ...front, appsDomain: 'apps.example', app: to('app') })
  const request = { url, headers: { host }, rawHeaders: ['Host', host] }
  handle(request as unknown as IncomingMessage, answer as unknown as ServerResponse)
  return came
}

const rows = [
  ['/.well-known/est/cacerts', 'gw:8443', 'est', '/.well-known/est/cacerts'],
  ['https://gw:8443/.well-known/est/cacerts', 'gw:8443', 'est', '/.well-known/est/cacerts'],
  ['HTTPS://GW:8443/crl/x.crl', 'gw:8443', 'revocation', '/crl/x.crl'],
  ['https://gw:8443?x', 'gw:8443', 'api', '/?x'],
  ['/agent/install', 'gw:8443', 'agent', '/agent/install'],
  ['/agent', 'gw:8443', 'api', '/agent'],
  ['/agent/install', 'a.apps.example', 'app', '/agent/install'],
  ['https://a.apps.example/oidc', 'a.apps.example', 'app', '/oidc'],
  ['https://gw/oidc', 'a.apps.example', '400', ''],
  ['https://a.apps.example/', 'gw', '400', ''],
  ['https://you@gw/', 'gw', '400', ''],
  ['http://gw/.well-known/est/cacerts', 'gw', 'api', 'http://gw/.well-known/est/cacerts'],
  ['//.well-known/est/cacerts', 'gw', 'api', '//.well-known/est/cacerts'],
] as const
test.for(rows)('%s at %s: %s', ([url, host, name, target]) => {
  expect(asked(url, host)).toEqual([name, target])
})

/** Where else a gateway may send its devices: what is read as an address, and what is followed. */
import { expect, test } from 'vitest'
import { mayFollow, readAlternative } from '../../agent-tunnel/agent/elsewhere.ts'

test.for([
  ['gw2.plant.example:8443', { host: 'gw2.plant.example', port: 8443 }],
  ['10.0.0.2:443', { host: '10.0.0.2', port: 443 }],
  ['[2001:db8::2]:8443', { host: '2001:db8::2', port: 8443 }],
  ['gw2', undefined],
  ['gw2:0', undefined],
  ['gw2:65536', undefined],
  ['2001:db8::2:8443', undefined],
  ['[gw2]:8443', undefined],
  ['-gw:8443', undefined],
  ['gw 2:8443', undefined],
  ['https://gw2:8443', undefined],
  ['a:b@gw2:8443', undefined],
] as const)('another address: %s', ([text, read]) => {
  expect(readAlternative(text)).toEqual(read)
})

test.for([
  ['its own host at another port', 'gw1.plant.example:9000', true],
  ['its own host in capitals', 'GW1.Plant.Example:8443', true],
  ['a name beside it, at its port', 'gw2.plant.example:8443', true],
  ['a name beside it, at 443', 'gw2.plant.example:443', true],
  ['a name beside it, at a port that is nobody’s', 'gw2.plant.example:22', false],
  ['a name below it', 'a.gw1.plant.example:8443', false],
  ['a name above it', 'plant.example:8443', false],
  ['another domain that ends alike', 'gw2.xplant.example:8443', false],
  ['an address that is listed', '10.0.0.2:8443', true],
  ['its other ports', '10.0.0.2:22', false],
  ['an address beside it', '10.0.0.3:8443', false],
  ['this machine', '127.0.0.1:8443', false],
] as const)('where a gateway may send us: %s', ([, text, allowed]) => {
  const configured = {
    gateway: { host: 'gw1.plant.example', port: 8443 },
    others: [{ host: '10.0.0.2', port: 8443 }],
  }
  const read = readAlternative(text)
  expect(read !== undefined && mayFollow(read, configured)).toBe(allowed)
})

test('a gateway directly below the top, or an address, has no names beside it', () => {
  for (const host of ['gw.example', '10.0.0.1'])
    for (const other of ['other.example', '10.0.0.3', '11.0.0.1'])
      expect(
        mayFollow({ host: other, port: 443 }, { gateway: { host, port: 443 }, others: [] }),
      ).toBe(false)
})

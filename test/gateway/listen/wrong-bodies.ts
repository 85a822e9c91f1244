/** Bodies that are not what the call takes: each is refused, and changes nothing. */
import { expecting } from '../../support/tunnels.ts'

/** The end of an id that nothing has. */
export const NONE = '0'.repeat(26)

const good = {
  grant: { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'x' },
  account: { email: 'a@b.c', name: 'A', party: 'staff', roles: [], password: 'x'.repeat(12) },
  process: expecting(),
}
/** The name says what is wrong; the method is POST where none is given. */
export const wrongBodies: readonly {
  readonly name: string
  readonly method?: string
  readonly path: string
  readonly body?: unknown
}[] = [
  { name: 'a device without an id', path: '/devices', body: {} },
  { name: 'a device id in capitals', path: '/devices', body: { id: 'Press' } },
  { name: 'a device id with two hyphens', path: '/devices', body: { id: 'a--b' } },
  { name: 'a device id that begins with a hyphen', path: '/devices', body: { id: '-a' } },
  { name: 'a device id of 41 characters', path: '/devices', body: { id: 'a'.repeat(41) } },
  { name: 'a device id with a path', path: '/devices', body: { id: '../x' } },
  { name: 'a device id with a line end', path: '/devices', body: { id: 'a\n' } },
  {
    name: 'a device with a field nobody knows',
    path: '/devices',
    body: { id: 'new', state: 'active' },
  },
  { name: 'labels that are numbers', path: '/devices', body: { id: 'new', labels: { a: 1 } } },
  {
    name: 'a label of 257 characters',
    path: '/devices',
    body: { id: 'new', labels: { a: 'x'.repeat(257) } },
  },
  {
    name: 'a label whose name has 65',
    path: '/devices',
    body: { id: 'new', labels: { ['x'.repeat(65)]: 'a' } },
  },
  { name: 'a list', path: '/devices', body: [] },
  { name: 'null', path: '/devices', body: null },
  { name: 'text', path: '/devices', body: '"x"' },
  { name: 'no body', path: '/devices' },
  { name: 'JSON that breaks off', path: '/devices', body: '{"id":' },
  { name: 'a prototype', path: '/devices', body: '{"id":"new","__proto__":{"a":1}}' },
  { name: 'a quarantine without a reason', path: '/devices/press-07/quarantine', body: {} },
  { name: 'an empty reason', path: '/devices/press-07/quarantine', body: { reason: '' } },
  {
    name: 'a reason of 501 characters',
    path: '/devices/press-07/quarantine',
    body: { reason: 'x'.repeat(501) },
  },
  {
    name: 'a device in the path that is none',
    path: '/devices/A%20B/quarantine',
    body: { reason: 'x' },
  },
  {
    name: 'a process of an unknown kind',
    method: 'PUT',
    path: '/devices/press-07/processes/x',
    body: { ...good.process, kind: 'serial' },
  },
  {
    name: 'a process without an expectation',
    method: 'PUT',
    path: '/devices/press-07/processes/x',
    body: { kind: 'tcp' },
  },
  {
    name: 'a hash that is none',
    method: 'PUT',
    path: '/devices/press-07/processes/x',
    body: { kind: 'tcp', expect: { sha256: ['x'] } },
  },
  {
    name: 'an expectation nobody knows',
    method: 'PUT',
    path: '/devices/press-07/processes/x',
    body: { kind: 'tcp', expect: { any: true } },
  },
  {
    name: 'port 65536',
    method: 'PUT',
    path: '/devices/press-07/processes/x',
    body: { ...good.process, port: 65_536 },
  },
  { name: 'a grant for no process', path: '/grants', body: { ...good.grant, processes: [] } },
  {
    name: 'a grant for one process twice',
    path: '/grants',
    body: { ...good.grant, processes: ['plc', 'plc'] },
  },
  { name: 'a grant for no time', path: '/grants', body: { ...good.grant, duration_s: 0 } },
  {
    name: 'a grant for a negative time',
    path: '/grants',
    body: { ...good.grant, duration_s: -1 },
  },
  {
    name: 'a grant for half a second',
    path: '/grants',
    body: { ...good.grant, duration_s: 0.5 },
  },
  { name: 'a grant for ever', path: '/grants', body: { ...good.grant, duration_s: 1e300 } },
  {
    name: 'a grant whose time is text',
    path: '/grants',
    body: { ...good.grant, duration_s: '60' },
  },
  {
    name: 'a grant without a reason',
    path: '/grants',
    body: { ...good.grant, reason: undefined },
  },
  {
    name: 'a grant of a level there is none',
    path: '/grants',
    body: { ...good.grant, ot_level: 3 },
  },
  {
    name: 'a grant in somebody else’s name',
    path: '/grants',
    body: { ...good.grant, requester: 'root' },
  },
  {
    name: 'a grant that says it is approved',
    path: '/grants',
    body: { ...good.grant, state: 'approved' },
  },
  { name: 'an approval without a hash', path: `/grants/g_${NONE}/approve`, body: {} },
  {
    name: 'an approval of a hash that is none',
    path: `/grants/g_${NONE}/approve`,
    body: { hash: 'x' },
  },
  { name: 'a grant id that is none', path: '/grants/g_x/revoke', body: { reason: 'x' } },
  { name: 'a session id that is none', path: '/sessions/s_x/cut', body: { reason: 'x' } },
  { name: 'a session without a process', path: '/sessions', body: { device: 'press-07' } },
  {
    name: 'a session on a grant that is none',
    path: '/sessions',
    body: { device: 'press-07', process: 'plc', grant: 'x' },
  },
  {
    name: 'an account with a short password',
    path: '/accounts',
    body: { ...good.account, password: 'short' },
  },
  {
    name: 'an account of an unknown role',
    path: '/accounts',
    body: { ...good.account, roles: ['root'] },
  },
  {
    name: 'an account whose address is none',
    path: '/accounts',
    body: { ...good.account, email: 'a b' },
  },
  {
    name: 'an account of an unknown party',
    path: '/accounts',
    body: { ...good.account, party: 'device' },
  },
]

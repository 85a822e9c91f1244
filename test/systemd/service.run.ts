/**
 * The agent as a service of a real systemd: installed by its own command, in the sandbox of its own unit, beside the service
 * that its target is; then updated, rolled back and taken away. The machine is one in namespaces (machine.sh); needs root,
 * cgroup v2, systemd, util-linux, python3.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { holds, openStream, proceed } from '../agent/gateway.ts'
import { another, Offers } from '../agent/offers.ts'
import { sha256Of } from '../agent/programs/process.ts'

const MACHINE = fileURLToPath(new URL('machine.sh', import.meta.url))
const BUILD = fileURLToPath(new URL('../../deploy/agent/build.ts', import.meta.url))
const SERVER = fileURLToPath(new URL('../agent/programs/server.py', import.meta.url))
const PYTHON = '/usr/bin/python3'

/** A service with a user of its own, whose program is an interpreter with a script. */
const PLC = `[Service]
User=daemon
ExecStart=${PYTHON} /srv/server.py plain
StandardOutput=file:/srv/port
`

let folder: string
let offers: Offers
/** Of what is made for the row, what has come to be, the last first. */
const undo = new AsyncDisposableStack()
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-systemd-'))
  undo.defer(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'srv'))
  await promisify(execFile)(process.execPath, [BUILD, '--sea', '--out', join(folder, 'srv')])
  copyFileSync(SERVER, srv('server.py'))
  writeFileSync(srv('plc.service'), PLC)
  offers = await Offers.start()
  const { gateway, key } = offers
  undo.use(gateway)
  writeFileSync(srv('token'), await gateway.bench.token())
  const install = [
    `/srv/sallyport-agent install --gateway ${gateway.url} --device press-07`,
    `--ca-sha256 ${gateway.pin} --target plc=tcp:127.0.0.1:$(cat /srv/port) --update-key ${key.word}`,
  ].join(' ')
  const script = [
    'cp /srv/plc.service /etc/systemd/system/ && systemctl daemon-reload && systemctl start plc.service',
    'until [ -s /srv/port ]; do sleep 0.1; done',
    `SALLYPORT_TOKEN=$(cat /srv/token) ${install}; echo "installed: $?"`,
    'until [ -e /srv/over ]; do sleep 0.1; done',
    'systemctl show sallyport-agent.service -p NRestarts -p ActiveState',
    'sallyport-agent uninstall --purge; echo "uninstalled: $?"',
    'ls /etc/systemd/system /var/lib; echo over',
  ]
  writeFileSync(srv('first.sh'), `${script.join('\n')}\n`)
  const machine = spawn(MACHINE, [folder], { stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = once(machine, 'close')
  undo.defer(async () => {
    machine.kill('SIGKILL')
    await ended
  })
})
afterAll(() => undo.disposeAsync())

const srv = (name: string) => join(folder, 'srv', name)
const said = () => (existsSync(srv('first.out')) ? readFileSync(srv('first.out'), 'utf8') : '')

test('it is installed, serves, is updated and rolled back, and taken away', async () => {
  await holds(() => expect(said()).toContain('installed: '))
  expect(said()).toContain('installed: 0')
  const { gateway } = offers
  const held = gateway.tunnels.at(-1)!
  const opened = await openStream(held, 'plc')
  const exe = realpathSync(PYTHON)
  expect(opened.observed).toMatchObject({
    exe,
    sha256: sha256Of(exe),
    script_sha256: sha256Of(SERVER),
    uid: 1,
    unit: 'plc.service',
    others: [],
  })
  proceed(opened)
  await holds(() => expect(opened.received.length).toBeGreaterThan(0))
  opened.stream.reset('done')

  const bundle = srv('sallyport-agent.cjs')
  offers.offer('r_good', offers.published('0.2.0', another(bundle, '0.2.0'), 3600))
  await offers.reports({ version: '0.2.0', kind: 'executable', trial: 'r_good' })
  offers.say({ act: 'heard', rollout: 'r_good' })
  await offers.reports({ trial: null, outcome: { rollout: 'r_good', fault: null } })
  offers.say({ act: 'heard', rollout: 'r_good' })
  const deaf = another(bundle, '0.3.0', (source) => source.replaceAll('sallyport/1', 'sallyport/9'))
  offers.offer('r_deaf', offers.published('0.3.0', deaf, 1))
  const back = { rollout: 'r_deaf', version: '0.3.0', fault: 'update.unhealthy' }
  await offers.reports({ version: '0.2.0', outcome: back })

  writeFileSync(srv('over'), '')
  await holds(() => expect(said()).toMatch(/^over$/m))
  // To each update, and back from the second.
  expect(said()).toContain('NRestarts=3\nActiveState=active')
  expect(said()).toContain('uninstalled: 0')
  expect(said().slice(said().indexOf('uninstalled: 0'))).not.toContain('sallyport')
})

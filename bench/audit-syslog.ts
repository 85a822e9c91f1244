/** Events a second from the log, over TLS, to the disk of a real rsyslogd. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { shipSyslog, type AuditLog } from '#audit'
import { makeCertificates } from '../test/audit/receiver.ts'

export const hasRsyslog =
  spawnSync('rsyslogd', ['-v']).status === 0 &&
  ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64'].some((at) =>
    existsSync(`${at}/rsyslog/lmnsd_ossl.so`),
  )

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return port
}

const lineCount = (path: string): number =>
  existsSync(path) ? readFileSync(path, 'latin1').split('\n').length - 1 : 0

/** Ships all of a log and gives the rate at which its events reached the receiver's disk. */
export async function syslogRate(log: AuditLog): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  const at = (name: string): string => join(directory, name)
  const { ca, server, client } = await makeCertificates()
  const port = await freePort()
  writeFileSync(at('ca.pem'), ca)
  writeFileSync(at('server.pem'), server.cert)
  writeFileSync(at('server.key'), server.key)
  writeFileSync(
    at('rs.conf'),
    `global(workDirectory="${directory}" defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="${at('ca.pem')}"
  defaultNetstreamDriverCertFile="${at('server.pem')}" defaultNetstreamDriverKeyFile="${at('server.key')}")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1"
  StreamDriver.AuthMode="x509/name" PermittedPeer=["client.test"])
template(name="t" type="string" string="%rawmsg%\\n")
ruleset(name="r" queue.type="Direct") { action(type="omfile" file="${at('out')}" template="t" flushOnTXEnd="on") }
input(type="imtcp" address="127.0.0.1" port="${port}" ruleset="r")
`,
  )
  const child = spawn('rsyslogd', ['-n', '-f', at('rs.conf'), '-i', at('pid')], { stdio: 'ignore' })
  const ended = once(child, 'exit')
  try {
    while (!existsSync(at('pid'))) await sleep(20)
    await sleep(300)
    await log.checkpoint()
    const events = log.size
    const began = performance.now()
    const shipper = shipSyslog(log, {
      name: 'bench',
      host: '127.0.0.1',
      port,
      ca,
      servername: 'siem.test',
      ...client,
      enterpriseNumber: 32_473,
      backoffMs: 20,
    })
    try {
      if (!(await shipper.flush(60_000)))
        throw new Error('rsyslogd did not take the events in time')
      // Handed over is not written: its file says when it is.
      for (let size = -1; lineCount(at('out')) < events || statSync(at('out')).size !== size;) {
        size = existsSync(at('out')) ? statSync(at('out')).size : -1
        await sleep(20)
      }
      return events / ((performance.now() - began) / 1_000)
    } finally {
      await shipper.close()
    }
  } finally {
    child.kill('SIGKILL')
    await ended
    rmSync(directory, { recursive: true })
  }
}

/**
 * The audit log, killed, torn and starved: what was acknowledged must be in the log and at a receiver, byte for byte, and
 * nothing that is only interrupted may be called corrupt.
 */
import { spawn, spawnSync } from 'node:child_process'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  openLog,
  readLog,
  shipHttps,
  verifyLog,
  webhook,
  type AuditLog,
  type EventInput,
} from '#audit'
import { pack } from '../../audit/batch.ts'
import type { Disk } from '../../audit/disk.ts'
import { render } from '../../audit/format/render.ts'
import { noteSigner } from '../../audit/note.ts'
import { Writer } from '../../audit/writer.ts'
import { Fake, hook, secret } from '../audit/fakes.ts'
import { dice, tryImage, type ImageWriter } from '../audit/images.ts'
import { makeCertificates } from '../audit/receiver.ts'

const origin = 'sallyport.test/audit/soak/1'
const key = generateKeyPairSync('ed25519').privateKey
const child = new URL('../audit/crash-child.ts', import.meta.url).pathname
/** Loops on one directory: opening reads all of it, so a longer one tests reading. */
const perDirectory = 20

function demand(ok: boolean, what: string): void {
  if (!ok) throw new Error(what)
}

function open(directory: string, limits = {}): Promise<AuditLog> {
  return openLog({
    directory,
    origin,
    signers: { ed25519: key },
    clock: { now: () => Date.now() },
    random: (n) => randomBytes(n),
    limits,
  })
}

function event(n: number, message: string): EventInput {
  return {
    code: 'session.stats',
    message,
    status: 'success',
    session: 's_1',
    data: { bytes_in: n, bytes_out: n, duration_ms: 1 },
  }
}

/** Runs 64 writers and kills them after `lines` acknowledgements and `ms`; gives what was acknowledged. */
async function runAndKill(directory: string, lines: number, ms: number): Promise<string[]> {
  const pem = Buffer.from(key.export({ type: 'pkcs8', format: 'pem' })).toString('base64')
  const own = spawn(process.execPath, [child, directory, origin, pem], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [said, wrong] = ['', '']
  let timer: NodeJS.Timeout | undefined
  own.stderr.on('data', (chunk: Buffer) => (wrong += chunk.toString()))
  own.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString()
    if (timer === undefined && said.split('\n').length > lines)
      timer = setTimeout(() => own.kill('SIGKILL'), ms)
  })
  const [, signal] = (await once(own, 'close')) as [number | null, string | null]
  demand(signal === 'SIGKILL', `the writers ended by themselves: ${wrong}`)
  return said.split('\n').slice(0, -1)
}

/** Every acknowledged event, in the log and at the receiver, is the one that was acknowledged. */
async function checkAcked(
  directory: string,
  acked: readonly string[],
  receiver: Fake,
): Promise<void> {
  const log = await open(directory)
  receiver.taken.clear()
  const kind = webhook({ path: '/in', secret })
  const target = { host: '127.0.0.1', port: receiver.port, servername: 'siem.test' }
  const shipper = shipHttps(log, { ...target, name: 'soak', ca: receiverCa, kind, backoffMs: 5 })
  demand(
    await shipper.flush(120_000),
    `the receiver did not get all: ${shipper.health().lastError}`,
  )
  await shipper.close()
  await log.close()
  const kept = new Map([...readLog(directory, origin)].map((entry) => [entry.idx, entry]))
  for (const line of acked) {
    const [idx = '', uid = '', leaf] = line.split(' ')
    const entry = kept.get(Number(idx))
    demand(entry?.uid === uid && entry.leaf === leaf, `acknowledged and lost: ${line}`)
    const body = Buffer.from(entry?.body ?? []).toString()
    demand(receiver.taken.get(uid) === body, `not at the receiver as it is in the log: ${line}`)
  }
  const verdict = await verifyLog({ directory, verifierKeys: log.vkeys })
  demand(verdict.outcome === 'proven', `a false alarm: ${verdict.why}`)
}
let receiverCa = ''

async function kills(loops: number, roll: (n: number) => number): Promise<string> {
  const certificates = await makeCertificates()
  receiverCa = certificates.ca
  const receiver = new Fake(certificates, hook)
  receiver.fault = (_asked, count) =>
    count % 4 === 2 ? 'reset' : count % 9 === 3 ? { status: 503 } : null
  await receiver.start()
  let total = 0
  try {
    for (let done = 0; done < loops;) {
      const directory = mkdtempSync(join(tmpdir(), 'sallyport-soak-'))
      const acked: string[] = []
      for (let i = 0; i < perDirectory && done < loops; i++, done++)
        acked.push(...(await runAndKill(directory, roll(400), roll(40))))
      await checkAcked(directory, acked, receiver)
      total += acked.length
      rmSync(directory, { recursive: true })
    }
  } finally {
    await receiver.kill()
  }
  return `killed ${loops} times under 64 writers, ${total} acknowledged, 0 lost, 0 false alarms`
}

class TextWriter extends Writer implements ImageWriter {
  write(heads: readonly string[]): unknown {
    return this.append(
      pack(
        heads.map((head) => ({ head, bytes: Buffer.byteLength(head) + 18 })),
        this.size,
      ),
    )
  }
}

function images(count: number, seed: number): string {
  const signers = [noteSigner(origin, key)]
  const source = { origin, node: 'soak', version: '0' }
  const maker = {
    writer: (directory: string, disk: Disk) =>
      new TextWriter({ directory, origin, signers, disk, segmentBytes: 1024 * 1024 }),
    heads: (n: number, tag: string) =>
      Array.from(
        { length: n },
        (_, i) => render(event(i, `${tag} ${i}`), source, 1_800_000_000_000, randomBytes(10)).head,
      ),
  }
  for (let i = 0; i < count; i++) tryImage(seed + i, maker)
  return `${count} torn images, 0 synced events lost, 0 false alarms`
}

/** A real file system that is full: one page later at every turn, so that each write in turn meets it. */
async function fullDisks(turns: number): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-full-'))
  const mounted =
    spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', directory]).status === 0
  if (!mounted) return 'a full disk: left out, this process may not mount one'
  let [acked, refused] = [0, 0]
  try {
    for (let turn = 0; turn < turns; turn++) {
      const at = join(directory, 'log')
      mkdirSync(at)
      const ballast = join(directory, 'ballast')
      writeFileSync(ballast, Buffer.alloc(1_800 * 1_024 - turn * 4_096))
      const done = await fillAndFree(at, ballast)
      acked += done.acked
      refused += done.refused
      rmSync(at, { recursive: true })
    }
  } finally {
    spawnSync('umount', [directory])
    rmSync(directory, { recursive: true, force: true })
  }
  return `${turns} full disks, ${acked} acknowledged, ${refused} refused, 0 lost, 0 false alarms`
}

async function fillAndFree(
  at: string,
  ballast: string,
): Promise<{ acked: number; refused: number }> {
  const log = await open(at, { reopenMs: 2, floorBytes: 0, checkpointMs: 5, drainMs: 60_000 })
  const acked: string[] = []
  let refused = 0
  const back = new Promise<void>((resolve) => log.onState((state) => state === 'OK' && resolve()))
  for (let n = 0; refused === 0; n++)
    await log.append(event(n, 'x'.repeat(700))).then(
      ({ idx, leaf }) => acked.push(`${idx} ${leaf}`),
      () => refused++,
    )
  rmSync(ballast)
  await back
  await log.append(event(0, 'there is room again'))
  await log.close()
  const kept = new Set([...readLog(at, origin)].map(({ idx, leaf }) => `${idx} ${leaf}`))
  for (const one of acked) demand(kept.has(one), `acknowledged on a full disk and lost: ${one}`)
  const verdict = await verifyLog({ directory: at, verifierKeys: log.vkeys })
  demand(verdict.outcome === 'proven', `a false alarm on a full disk: ${verdict.why}`)
  return { acked: acked.length, refused }
}

/** `loops` kills, fifteen times as many images (3,000 with 200 kills), a full disk for every fifth. */
export async function soak({ loops, seed }: { loops: number; seed: number }): Promise<string[]> {
  return [
    images(loops * 15, seed),
    await fullDisks(Math.max(1, Math.floor(loops / 5))),
    await kills(loops, dice(seed)),
  ]
}

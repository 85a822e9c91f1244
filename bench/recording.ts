/** Recordings: sealing beside the bare cipher and a bare write of the same bytes, and what a session pays that is not recorded. */
import { createCipheriv, randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CastWriter, identityOf, pcapPacket, Recorder, Sealer } from '#audit'
import { Flow } from '../gateway/sessions/flow.ts'
import type { Bench, Row } from './row.ts'

const MiB = 1024 * 1024
const CHUNK = 64 * 1024
const recipients = [1, 2].map((n) => identityOf(new Uint8Array(32).fill(n)).recipient)
const chunk = randomBytes(CHUNK)

/** CPU seconds of this process for `work`. */
function cpuOf(work: () => void): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

/** MiB for each CPU second: files of 1 MiB, as parts are. */
function seal(parts: number): number {
  const used = cpuOf(() => {
    for (let part = 0; part < parts; part++) {
      const sealer = new Sealer(recipients, [], (n) => randomBytes(n))
      for (let at = 0; at < MiB; at += CHUNK) sealer.push(chunk)
      sealer.end()
    }
  })
  return parts / used
}

/** The same bytes through the cipher, each chunk with a nonce and a tag, and nothing else. */
function bareCipher(parts: number): number {
  const key = randomBytes(32)
  const nonce = Buffer.alloc(12)
  const options = { authTagLength: 16 } as const
  const used = cpuOf(() => {
    for (let at = 0; at < parts * MiB; at += CHUNK) {
      nonce.writeUInt32BE(at / CHUNK, 4)
      const cipher = createCipheriv('chacha20-poly1305', key, nonce, options)
      cipher.update(chunk)
      cipher.final()
      cipher.getAuthTag()
    }
  })
  return parts / used
}

/** MiB a second onto the disk, parts synced and logged; what is logged costs nothing here. */
async function record(mebibytes: number): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  let idx = 0
  try {
    const began = performance.now()
    const recorder = await Recorder.open({
      directory,
      facts: {
        session: `s_${'0'.repeat(26)}`,
        format: 'pcapng',
        device: 'press-07',
        process: 'plc',
        grant: `g_${'0'.repeat(26)}`,
        began: 0,
        recipients: [],
      },
      recipients,
      budget: Number.MAX_SAFE_INTEGER,
      clock: { now: () => Date.now() },
      random: (n) => randomBytes(n),
      logged: () => Promise.resolve(idx++),
      failed: (error) => {
        throw error
      },
    })
    const track = recorder.track(new Uint8Array(0))
    for (let at = 0; at < mebibytes * MiB; at += CHUNK) {
      track.write(chunk)
      if (track.full) await new Promise<void>((resolve) => (track.onDrain = resolve))
    }
    await recorder.end()
    return mebibytes / ((performance.now() - began) / 1000)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** MiB a second of the same bytes in files of 1 MiB, written and synced. */
function bareWrites(mebibytes: number): number {
  const directory = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  try {
    const began = performance.now()
    for (let file = 0; file < mebibytes; file++) {
      const fd = openSync(join(directory, String(file)), 'wx')
      for (let at = 0; at < MiB; at += CHUNK) writeSync(fd, chunk)
      fsyncSync(fd)
      closeSync(fd)
    }
    return mebibytes / ((performance.now() - began) / 1000)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** Nanoseconds of CPU for each call. */
function each(calls: number, call: (at: number) => void): number {
  return (
    (cpuOf(() => {
      for (let at = 0; at < calls; at++) call(at)
    }) /
      calls) *
    1e9
  )
}

function flowCost(calls: number): number {
  const flow = new Flow(0)
  return each(calls, (at) => flow.add('out', 1_400, at / 10))
}

const frame = Buffer.from('000100000006010300000001', 'hex')
const end = { ip: '192.0.2.7', port: 502 }
function packetCost(calls: number): number {
  const packet = { protocol: 'mbtcp', from: end, to: end, direction: 'in', bytes: frame } as const
  return each(calls, (at) => void pcapPacket({ ...packet, at, comment: 'allowed: read unit 1' }))
}

const screenful = Buffer.from('\u001b[1;32muser@press-07\u001b[0m:~$ ls -l\r\n'.repeat(4))
function castCost(calls: number): number {
  const cast = new CastWriter(0)
  return each(calls, (at) => void cast.output(screenful, at))
}

function row(metric: string, unit: string, reference: string, values: readonly number[]): Row {
  const sorted = values.toSorted((a, b) => a - b)
  const value = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
  const widest = Math.max(...values.map((one) => Math.abs(one - value)))
  return { metric, value, unit, reference, spread: `±${((widest / value) * 100).toFixed(0)} %` }
}

async function rows(quick: boolean): Promise<Row[]> {
  const [rounds, parts, calls] = quick ? [3, 64, 100_000] : [7, 256, 500_000]
  const found: Record<
    'seal' | 'cipher' | 'record' | 'bare' | 'flow' | 'packet' | 'cast',
    number[]
  > = { seal: [], cipher: [], record: [], bare: [], flow: [], packet: [], cast: [] }
  seal(8)
  for (let round = 0; round < rounds; round++) {
    found.cipher.push(bareCipher(parts))
    found.seal.push(seal(parts))
    found.bare.push(bareWrites(parts / 2))
    found.record.push(await record(parts / 2))
    found.flow.push(flowCost(calls * 10))
    found.packet.push(packetCost(calls))
    found.cast.push(castCost(calls))
  }
  const ratio = (a: readonly number[], b: readonly number[]) =>
    a.map((value, at) => value / (b[at] ?? Number.NaN))
  const sealed = 'parts of 1 MiB to two keys, one core; bar 150'
  return [
    row('seal_mib_per_s', 'MiB/s', sealed, found.seal),
    row(
      'seal_vs_cipher',
      'x',
      'ChaCha20-Poly1305 of the same chunks alone',
      ratio(found.seal, found.cipher),
    ),
    row('record_mib_per_s', 'MiB/s', 'sealed, synced and renamed part by part', found.record),
    row(
      'record_vs_write',
      'x',
      'files of 1 MiB written and synced',
      ratio(found.record, found.bare),
    ),
    row('flow_ns', 'ns', 'CPU for each chunk of a session that is not recorded', found.flow),
    row('packet_ns', 'ns', 'CPU for each Modbus frame, before it is sealed', found.packet),
    row(
      'cast_ns',
      'ns',
      'CPU for each 180 octets of a terminal, before they are sealed',
      found.cast,
    ),
  ]
}

export const bench: Bench = {
  name: 'recording',
  title: 'recordings: sealing, writing, and what a session pays that is not recorded',
  run: ({ quick }) => rows(quick),
}

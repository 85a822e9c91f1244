/** A CA that is killed in the middle of an enrolment: what is left, and what the same request gets next. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { instant, newToken, revokeLapsed } from '#ca'
import { createCsr } from '#est'
import { readCertificate } from '../../ca/der/certificate.ts'
import { Bench, DAY, enrolling, leafOf, newHouse, newKey, NOON, random, TENANT } from './support.ts'

const program = new URL('./dying.ts', import.meta.url).pathname

/** A CA on disk, a token, and a request that has not been made. */
async function scene() {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-crash-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const house = await newHouse()
  const { root, issuing } = house.authority
  const key = house.keys.issuing.export({ type: 'pkcs8', format: 'pem' })
  const write = (name: string, value: unknown) =>
    writeFileSync(join(folder, name), JSON.stringify(value))
  write('house.json', { root: root.toBase64(), issuing: issuing.toBase64(), key })
  const csr = createCsr(newKey(), { deviceId: 'press-07', tenant: TENANT })
  const open = async () => await Bench.open(join(folder, 'store.sqlite'), house)
  await using bench = await open()
  const made = { tenant: TENANT, device: 'press-07', lifetimeSeconds: 3_600, random }
  const token = (await newToken({ ...made, now: instant(NOON) }, bench.store)).text
  write('request.json', { csr: csr.toBase64(), token, now: String(NOON) })
  return {
    open,
    request: enrolling(csr, token),
    killed: (point: string) =>
      spawnSync(process.execPath, [program, folder, point], { encoding: 'utf8' }),
    events: () => {
      const path = join(folder, 'events.ndjson')
      if (!existsSync(path)) return []
      const lines = readFileSync(path, 'utf8').trim().split('\n')
      return lines.map((line) => JSON.parse(line) as { code: string; serial?: string })
    },
  }
}

/** Each point with the state of the row it leaves; undefined where there is none. */
const points = [
  ['before answer', undefined],
  ['before record', undefined],
  ['after record', 'intent'],
  ['before log', 'intent'],
  ['after log', 'intent'],
  ['before sign', 'intent'],
  ['after sign', 'intent'],
  ['before complete', 'intent'],
  ['after complete', 'active'],
  ['after answer', 'active'],
] as const

test.for(points)(
  'kill -9 %s: the row is %s, and the same request gets one certificate under one serial',
  async ([point, state]) => {
    const { open, request, killed, events } = await scene()
    const died = killed(point)
    expect(died.signal, died.stderr).toBe('SIGKILL')
    await using bench = await open()
    const [left, more] = await bench.store.listCertificates(TENANT)
    expect([left?.state, more]).toEqual([state, undefined])
    // Nothing was signed of which the log had not heard, and nothing logged that has no row.
    const logged = events().flatMap(({ code, serial }) => (code === 'cert.issue' ? [serial] : []))
    expect(logged.every((serial) => serial === left?.serial)).toBe(true)
    if (point === 'after sign' || state === 'active') expect(logged).toHaveLength(1)
    const leaf = leafOf(await bench.server()(request))
    const rows = await bench.store.listCertificates(TENANT)
    expect(rows).toHaveLength(1)
    expect(rows[0]).toMatchObject({ state: 'active', serial: readCertificate(leaf).serial })
    expect(rows[0]?.certificate).toEqual(leaf)
    if (left !== undefined) {
      expect(rows[0]?.serial).toBe(left.serial)
      expect(readCertificate(leaf).bytes).toEqual(left.tbs)
    }
    if (left?.certificate) expect(leaf).toEqual(left.certificate)
    expect(await bench.store.openIntentions(TENANT)).toEqual([])
  },
)

test('kill -9 after sign, and nobody asks again: the serial joins the list, since a signature may exist', async () => {
  const { open, killed } = await scene()
  killed('after sign')
  await using bench = await open()
  const [left] = await bench.store.listCertificates(TENANT)
  const desk = { store: bench.store, log: async () => undefined }
  expect(await revokeLapsed(TENANT, instant(NOON + DAY), desk)).toEqual([left?.serial])
  const { id } = bench.house.issuers.active
  const listed = await bench.store.revokedCertificates(TENANT, id, instant(NOON + DAY))
  expect(listed.map(({ serial }) => serial)).toEqual([left?.serial])
})

test('not killed at all, the program answers: the points above are in its way', async () => {
  const { killed } = await scene()
  expect(killed('never')).toMatchObject({ status: 0, stdout: '200\n' })
})

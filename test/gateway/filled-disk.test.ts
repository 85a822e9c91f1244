/**
 * The disk of a node fills up while it runs: what may not be done without a record is refused, what is there is
 * answered, who was revoked is out, and once there is room everything goes on without a restart.
 */
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { request as httpsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { DeviceToken } from '#api'
import { createCsr, createRenewalCsr, enrollRequest, parseCertsOnly, reenrollRequest } from '#est'
import { openssl } from '../ca/openssl.ts'
import { pem } from '../ca/support.ts'
import {
  newKey,
  presenting,
  send,
  startNode,
  TENANT,
  toNode,
  until,
  type Answer,
  type DeviceIdentity,
  type TestNode,
} from '../support/node.ts'
import { dialDevice } from '../support/tunnels.ts'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 })

/** A file system of 32 MiB; undefined where none can be had. */
function smallDisk(): string | undefined {
  const path = mkdtempSync(join(tmpdir(), 'sallyport-filled-'))
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', path]).status === 0) return path
  rmSync(path, { recursive: true })
  return undefined
}
const disk = smallDisk()
afterAll(() => {
  if (disk === undefined) return
  spawnSync('umount', ['--lazy', disk])
  rmSync(disk, { recursive: true, force: true })
})

const ballast = join(disk ?? '', 'ballast')
/** Takes what is left of the disk, to the last octet. */
function fill(): void {
  const fd = openSync(ballast, 'a')
  try {
    for (const size of [1_048_576, 4_096, 1]) while (put(fd, size));
  } finally {
    closeSync(fd)
  }
}
function put(fd: number, size: number): boolean {
  try {
    return writeSync(fd, Buffer.alloc(size)) === size
  } catch (error) {
    expect(error).toMatchObject({ code: 'ENOSPC' })
    return false
  }
}

const serialOf = ({ chain }: Pick<DeviceIdentity, 'chain'>): string =>
  new X509Certificate(chain[0] ?? '').serialNumber.toLowerCase()

describe.skipIf(disk === undefined)('a full disk (needs a tmpfs to fill)', () => {
  let node: TestNode
  let device: DeviceIdentity
  let lost: DeviceIdentity
  let token: string
  let issuing: Uint8Array
  let keyId: string
  const [first, next] = [newKey(), newKey()]
  const enrol = async () => {
    const csr = createCsr(first, { deviceId: 'press-09', tenant: TENANT })
    return await send(node, enrollRequest({ csr, token }))
  }
  const renew = async (key = next) => {
    const csr = createRenewalCsr(key, device.chain[0] ?? new Uint8Array())
    return await send(node, { ...reenrollRequest({ csr }), ...presenting(device) })
  }
  const revoke = async () =>
    await node.admin.call('POST', '/devices/press-08/revoke', { reason: 'keyCompromise' })
  const signed = () =>
    node
      .rows(
        "SELECT serial FROM ca_certificate WHERE profile = 'device' AND certificate IS NOT NULL",
      )
      .map(({ serial }) => String(serial))
  const told = () =>
    node
      .events()
      .filter(({ code }) => code === 'cert.issue')
      .map(({ text }) => text)
      .join('\n')
  /** What the list of the issuing CA and its responder say of `lost`, as openssl reads it. */
  async function published(): Promise<string> {
    using ssl = openssl()
    const [issuer, leaf] = [issuing, lost.chain[0] ?? new Uint8Array()].map((der, at) =>
      ssl.file(`${at}.pem`, pem(der)),
    )
    const root = ssl.file('root.pem', node.anchor)
    const list = await fetched(`/crl/${keyId}.crl`)
    const { text } = ssl.run('crl', '-inform', 'DER', '-noout', '-text', '-in', ssl.file('l', list))
    const question = join(ssl.folder, 'question')
    ssl.run('ocsp', '-issuer', issuer ?? '', '-cert', leaf ?? '', '-no_nonce', '-reqout', question)
    const path = `/ocsp/${encodeURIComponent(readFileSync(question).toString('base64'))}`
    const answer = ssl.file('answer', await fetched(path))
    const chain = ['-CAfile', root, '-verify_other', issuer ?? '']
    const said = ssl.run(
      'ocsp',
      '-respin',
      answer,
      '-issuer',
      issuer ?? '',
      '-cert',
      leaf ?? '',
      ...chain,
    )
    const listed = text.toLowerCase().includes(serialOf(lost)) ? 'listed' : 'not listed'
    return `${listed}, ${/: (good|revoked|unknown)/.exec(said.text)?.[1] ?? said.text}`
  }
  const fetched = async (path: string): Promise<Buffer> =>
    await new Promise((resolve, reject) => {
      const request = httpsRequest({ ...toNode(node), path }, (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('end', () => resolve(Buffer.concat(parts)))
      })
      request.on('error', reject).end()
    })

  beforeAll(async () => {
    node = await startNode({
      data: disk ?? '',
      config: 'log_space: { closeout_mib: 1, breakglass_mib: 1, floor_mib: 1, warn_mib: 2 }\n',
    })
    device = await node.device('press-07')
    lost = await node.device('press-08')
    const added = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', {
      id: 'press-09',
    })
    token = added.token.token
    const { text } = await send(node, { method: 'GET', path: '/.well-known/est/cacerts' })
    issuing = parseCertsOnly(text)[1] ?? new Uint8Array()
    keyId = String(node.rows('SELECT issuer FROM ca_certificate')[0]?.['issuer'])
  })
  afterAll(async () => await node[Symbol.asyncDispose]())

  test('whoever is revoked is out, at once and on every list, with the disk as full as it can be', async () => {
    expect(await published()).toBe('not listed, good')
    fill()
    expect((await revoke()).status).toBe(200)
    fill()
    expect(await (await dialDevice(node, lost)).closed).toMatchObject({ code: 'peer.revoked' })
    await until('the new list', async () => (await published()) === 'listed, revoked')
  })

  test('what cannot be recorded is not issued: 503, try again later; and what was issued is on record', async () => {
    let refused: Answer | undefined
    for (let tries = 0; refused === undefined && tries < 64; tries++) {
      fill()
      const answer = await renew(newKey())
      if (answer.status !== 200) refused = answer
    }
    expect(refused?.status).toBe(503)
    expect(refused?.text).toMatch(
      /^(?:store|log|decision)\.unavailable: [^;]+; try again after the time in Retry-After \(/,
    )
    expect(Number(refused?.headers.get('retry-after'))).toBeGreaterThan(0)
    const issued = told()
    expect(signed().filter((serial) => !issued.includes(serial))).toEqual([])
    const { status } = await send(node, { method: 'GET', path: '/.well-known/est/cacerts' })
    expect([status, await published()]).toEqual([200, 'listed, revoked'])
  })

  test('with room again, and without a restart: enrolled with the same token, renewed, revoked', async () => {
    rmSync(ballast)
    const enrolled = await until('there is room', async () => {
      const answer = await enrol()
      return answer.status === 200 && answer
    })
    const chain = parseCertsOnly(enrolled.text)
    expect((await renew()).status).toBe(200)
    const issued = told()
    expect(issued).toContain(serialOf({ chain }))
    expect(signed().filter((serial) => !issued.includes(serial))).toEqual([])
    expect((await revoke()).status).toBe(200)
  })
})

/** A gateway whose root is replaced: devices that run, that were away, that lost their clock, and the way back of those that cannot follow. */
import { X509Certificate } from 'node:crypto'
import { afterEach, describe, expect, test } from 'vitest'
import fc from 'fast-check'
import {
  createIssuing,
  createRoot,
  crossCertify,
  instant,
  openIssuers,
  softwareSigner,
  type Issuers,
} from '#ca'
import { acceptIssued, pathTo } from '#est'
import { enrolAgent } from '#agent'
import { Identity } from '../../agent-tunnel/agent/identity.ts'
import { DAY, HOUR, newKey, random, TENANT } from '../ca/support.ts'
import { Directory, enrolled, running } from './device.ts'
import { FakeGateway } from './gateway.ts'
import { renewOnce } from './renewing.ts'

const undo: { [Symbol.asyncDispose]?: () => Promise<void>; [Symbol.dispose]?: () => void }[] = []
afterEach(async () => {
  for (const each of undo.splice(0).toReversed()) {
    await each[Symbol.asyncDispose]?.()
    each[Symbol.dispose]?.()
  }
})

async function device() {
  const gateway = await FakeGateway.start()
  const directory = new Directory()
  undo.push(gateway, directory)
  const config = await enrolled(gateway, directory)
  return { gateway, directory, config, identity: new Identity(directory.path) }
}

/** The two states of a rollover (docs/keys.md): the new CAs are served, then they sign. */
interface Rollover {
  readonly served: Issuers
  readonly signing: Issuers
  readonly crosses: readonly Uint8Array[]
}

/** A new root with an issuing CA under it, joined to the root of before. */
async function newRoot({ bench }: FakeGateway): Promise<Rollover> {
  const { authority, keys } = bench.house
  const occasion = { tenant: TENANT, now: instant(bench.now), random }
  const [rootSigner, signer] = [softwareSigner(newKey('P-384')), softwareSigner(newKey())]
  const root = {
    certificate: await createRoot({ ...occasion, signer: rootSigner }),
    signer: rootSigner,
  }
  const old = { certificate: authority.root, signer: softwareSigner(keys.root) }
  const { oldWithNew, newWithOld } = await crossCertify(old, root, occasion)
  const next = { certificate: await createIssuing({ ...occasion, root, signer }), signer }
  const before = { certificate: authority.issuing, signer: softwareSigner(keys.issuing) }
  const crosses = [newWithOld, oldWithNew]
  return {
    crosses,
    served: openIssuers({
      roots: [authority.root, root.certificate],
      active: before,
      next: [next],
      crosses,
    }),
    signing: openIssuers({
      roots: [root.certificate, authority.root],
      active: next,
      retired: [before],
      crosses,
    }),
  }
}

/** The gateway issues by `issuers` from now on and presents a certificate of theirs, with what joins the roots. */
async function go(gateway: FakeGateway, issuers: Issuers, crosses: readonly Uint8Array[]) {
  const { bench } = gateway
  bench.issuers = () => issuers
  Object.assign(bench.house, { issuers })
  const face = await gateway.face()
  await gateway.listen({ ...face, chain: [...face.chain, ...crosses] })
}

const issuerOf = (leaf: X509Certificate) => leaf.issuer
const subjectOf = ({ active }: Issuers) => active.x509.subject

describe('a new root', () => {
  test('a device that runs: it learns of it while it is served, renews when it signs, and connects with that', async () => {
    const { gateway, directory, config } = await device()
    const rollover = await newRoot(gateway)
    await go(gateway, rollover.served, rollover.crosses)
    const first = await renewOnce(directory.path)
    expect(issuerOf(first.leaf)).toBe(subjectOf(rollover.served))
    // A day later: another notBefore, or the pairs could not be told apart.
    gateway.bench.now += DAY
    await go(gateway, rollover.signing, rollover.crosses)
    const next = await renewOnce(directory.path, () => gateway.bench.now)
    expect(issuerOf(next.leaf)).toBe(subjectOf(rollover.signing))
    await using agent = running(config, { system: () => gateway.bench.now })
    const held = await gateway.nextTunnel()
    expect(held.serial).toBe(next.leaf.serialNumber.toLowerCase())
    expect(agent.logged('gateway.untrusted')).toEqual([])
  })

  test('an agent that runs all the while: its tunnel comes back each time, the last on a certificate of the new root', async () => {
    const { gateway, config } = await device()
    const { bench } = gateway
    const start = bench.now
    gateway.welcome = () => ({ device: 'press-07', now_ms: bench.now, gateway: 'gw1', epoch: 1 })
    await using agent = running(config, { system: () => Date.now() + bench.now - start })
    await gateway.nextTunnel()
    const rollover = await newRoot(gateway)
    const returns = async (issuers: Issuers) => {
      bench.now += HOUR
      const coming = gateway.nextTunnel()
      await go(gateway, issuers, rollover.crosses)
      return await coming
    }
    const served = await returns(rollover.served)
    const back = await returns(rollover.signing)
    expect(back.serial).toBe(served.serial)
    const coming = gateway.nextTunnel()
    back.control.write(Buffer.from('{"type":"renew"}\n'))
    const row = await bench.store.findCertificate((await coming).serial)
    expect(row?.issuer).toBe(rollover.signing.active.id)
    expect(agent.logged('certificate.renewed')).toHaveLength(1)
    expect(agent.logged('certificate.not_renewed')).toEqual([])
  })

  test('a device that was away through all of it: dials, renews, and again', async () => {
    const { gateway, directory } = await device()
    const rollover = await newRoot(gateway)
    gateway.bench.now += 60 * HOUR
    await go(gateway, rollover.signing, rollover.crosses)
    const clock = () => gateway.bench.now
    const next = await renewOnce(directory.path, clock)
    expect(issuerOf(next.leaf)).toBe(subjectOf(rollover.signing))
    gateway.bench.now += HOUR
    expect(issuerOf((await renewOnce(directory.path, clock)).leaf)).toBe(
      subjectOf(rollover.signing),
    )
  })

  test('18 months away, the clock at 1970: late, with its old key, approved, under the new root', async () => {
    const { gateway, directory, identity } = await device()
    const before = identity.pairs()[0]!
    const { bench } = gateway
    bench.now += 200 * DAY
    const rollover = await newRoot(gateway)
    bench.now += 348 * DAY
    await go(gateway, rollover.signing, rollover.crosses)
    const denial = { code: 'renew.too_late', msg: 'it ended too long ago', remedy: 'approve' }
    bench.decision = { allow: false, denials: [denial], decision_id: 'd_late', obligations: {} }
    const options = bench.options.bind(bench)
    bench.options = (extra) => options({ pending: bench.pending, ...extra })
    await expect(renewOnce(directory.path, () => 0)).rejects.toMatchObject({
      code: 'enrol.pending',
    })
    const at = instant(bench.now)
    const [row] = await bench.pending.list(TENANT, at)
    const answer = { state: 'approved', by: 'iss|olga', at, expiresAt: instant(at + HOUR) } as const
    await bench.pending.decide(TENANT, row!.id, answer)
    const next = await renewOnce(directory.path, () => 0)
    expect(issuerOf(next.leaf)).toBe(subjectOf(rollover.signing))
    expect(next.leaf.checkPrivateKey(before.key)).toBe(true)
  })

  test('the old root is given up: refused with the way back, the old pair stays; the new pin and a token do it', async () => {
    const { gateway, directory, config, identity } = await device()
    const before = identity.pairs()[0]!
    const rollover = await newRoot(gateway)
    await go(gateway, rollover.signing, [])
    await expect(renewOnce(directory.path)).rejects.toMatchObject({
      code: 'gateway.untrusted',
      next: expect.stringContaining('--ca-sha256'),
    })
    expect(identity.pairs().map(({ leaf }) => leaf.serialNumber)).toEqual([
      before.leaf.serialNumber,
    ])
    gateway.bench.now += 60_000
    const [root] = rollover.signing.roots
    const rootSha256 = root!.x509.fingerprint256.replaceAll(':', '').toLowerCase()
    const token = await gateway.bench.token()
    await enrolAgent({ ...config, rootSha256 }, { token, log: () => undefined })
    const next = await renewOnce(directory.path, () => gateway.bench.now)
    expect(issuerOf(next.leaf)).toBe(subjectOf(rollover.signing))
  })

  test('a new device pins the new root while the old one is still served', async () => {
    const { gateway, config } = await device()
    const rollover = await newRoot(gateway)
    await go(gateway, rollover.signing, rollover.crosses)
    const [root] = rollover.signing.roots
    const rootSha256 = root!.x509.fingerprint256.replaceAll(':', '').toLowerCase()
    const fresh = new Directory()
    undo.push(fresh)
    gateway.bench.now += 60_000
    const own = { ...config, rootSha256, dataDir: fresh.path }
    const pair = await enrolAgent(own, { token: await gateway.bench.token(), log: () => undefined })
    expect(issuerOf(pair.leaf)).toBe(subjectOf(rollover.signing))
    expect(issuerOf((await renewOnce(fresh.path)).leaf)).toBe(subjectOf(rollover.signing))
  })
})

test('in whatever order certificates come, the path to either root is found, and no other', async () => {
  const { gateway, identity } = await device()
  const rollover = await newRoot(gateway)
  await go(gateway, rollover.signing, rollover.crosses)
  const { roots, all } = rollover.signing
  const cas = [...roots, ...all].map(({ certificate }) => certificate).concat(rollover.crosses)
  const x509 = (der: Uint8Array) => new X509Certificate(der)
  const old = identity.pairs()[0]!.leaf
  const face = await gateway.face()
  const fresh = x509(face.chain[0]!)
  const stranger = x509(
    await FakeGateway.start().then(async (other) => {
      undo.push(other)
      return (await other.face()).chain[0]!
    }),
  )
  fc.assert(
    fc.property(fc.shuffledSubarray(cas, { minLength: cas.length }), (order) => {
      for (const root of roots) {
        for (const leaf of [old, fresh]) {
          const path = pathTo(leaf, order.map(x509), root.x509)
          expect(path?.at(-1)?.fingerprint256).toBe(root.x509.fingerprint256)
        }
        expect(pathTo(stranger, order.map(x509), root.x509)).toBeUndefined()
      }
    }),
    { numRuns: 60 },
  )
  const key = newKey()
  expect(() =>
    acceptIssued(new Uint8Array(old.raw), {
      key,
      deviceId: 'press-07',
      tenant: TENANT,
      authorities: cas,
      root: roots[0]!.certificate,
      now: Date.now(),
    }),
  ).toThrow(/another key/)
})

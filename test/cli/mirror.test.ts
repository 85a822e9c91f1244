/** `sallyport audit mirror run` between a gateway that fails and a log that was rewritten. */
import { onTestFinished, expect, test, vi } from 'vitest'
import { AuditError, type Mirror, type MirrorSource } from '#audit'
import { keep } from '../../cli/commands/mirror.ts'
import { CliError } from '../../cli/exit.ts'
import { openMirrorSource } from '../../cli/mirror.ts'
import { startFakeGateway } from './fake-gateway.ts'
import { generateKeyPairSync } from 'node:crypto'

const failure = (code: string) => new CliError('it fails', { code, exit: 'failed' })

/** Follows with these failures, one a look, then without any until it is stopped after that. */
async function following(failures: readonly Error[]): Promise<{ looks: number; said: string }> {
  let said = ''
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      said += String(text)
      return true
    }),
  )
  onTestFinished(() => spies.forEach((spy) => spy.mockRestore()))
  const stopping = new AbortController()
  let looks = 0
  const mirror = {
    follow() {
      const error = failures[looks++]
      if (error !== undefined) return Promise.reject(error)
      stopping.abort()
      return Promise.resolve({ events: 0, checkpoint: { size: 1, root: '' }, submitted: true })
    },
  } as unknown as Mirror
  const source = { [Symbol.asyncDispose]: () => Promise.resolve() } as unknown as MirrorSource &
    AsyncDisposable
  await keep({
    mirror,
    connect: () => Promise.resolve(source),
    every: 1,
    signal: stopping.signal,
    options: {} as never,
    dir: 'mirror',
  })
  return { looks, said }
}

test.for([
  ['fails', 'internal'],
  ['answers what nobody understands', 'gateway.answer'],
  ['knows of a conflict', 'witness.conflict'],
  ['says by itself that its log forked', 'mirror.fork'],
] as const)('a gateway that %s is said and asked again', async ([, code]) => {
  const { looks, said } = await following([failure(code), failure(code)])
  expect(looks).toBe(3)
  expect(said.split(`(${code}); tries again`)).toHaveLength(2)
})

test.for(['mirror.fork', 'mirror.rollback', 'mirror.other', 'mirror.conflict'] as const)(
  '%s, found here, ends it with 1',
  async (code) => {
    const found = new AuditError(code, 'two heads')
    await expect(following([failure('internal'), found])).rejects.toMatchObject({
      code,
      exit: 'failed',
      cause: found,
    })
  },
)

test.for([
  [500, null],
  [
    503,
    { code: 'log.unavailable', title: 'no log', status: 503, type: 'about:blank', request_id: 'r' },
  ],
] as const)(
  'one look that is answered %i does not end as a rewritten log does',
  async ([status, body]) => {
    await using gateway = await startFakeGateway()
    gateway.answer('GET /api/v1/audit/log/checkpoint', { status, body })
    const { privateKey: ed25519 } = generateKeyPairSync('ed25519')
    const { privateKey: mlDsa44 } = generateKeyPairSync('ml-dsa-44')
    const keys = { name: 'mirror.test/m', ed25519, mlDsa44, vkeys: ['mirror.test/m+00000000+AA'] }
    const site = { gateway: new URL(gateway.origin), anchor: gateway.anchor, origin: 'x/1', keys }
    await using source = openMirrorSource(site)
    await expect(source.checkpoint()).rejects.toMatchObject({ exit: 'unreachable' })
  },
)

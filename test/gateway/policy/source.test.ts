/** Bundles that come by themselves: from a server that waits, one that does not, and a file that is dropped. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { BundleSource, type SourceSettings } from '../../../gateway/policy/source.ts'
import { until } from '../../support/node.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-source-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const TYPE = 'application/vnd.openpolicyagent.bundles'

interface Room {
  readonly taken: string[]
  readonly told: string[]
  /** How many had been taken when it was told to forgive. */
  readonly forgiven: number[]
  readonly source: BundleSource
}

function watching(settings: SourceSettings, refuse: (text: string) => boolean = () => false): Room {
  const taken: string[] = []
  const told: string[] = []
  const forgiven: number[] = []
  const source = new BundleSource(settings, {
    now: () => 1_000,
    report: (error) => void told.push(String(error)),
    forgive: () => void forgiven.push(taken.length),
    take(archive) {
      const text = Buffer.from(archive).toString()
      if (refuse(text)) return Promise.reject(new Error(`bundle.signature ${text}`))
      taken.push(text)
      return Promise.resolve()
    },
  })
  source.start()
  return { taken, told, forgiven, source }
}

async function serving(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<AsyncDisposable & { readonly url: string }> {
  const server = createServer(answer)
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/bundles/site`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => void server.close(() => resolve()))
    },
  }
}

test('each bundle is taken once, though the server is asked again and again, with the ETag', async () => {
  let version = 1
  const held: ServerResponse[] = []
  await using server = await serving((request, response) => {
    expect(request.headers['prefer']).toMatch(/modes=snapshot;wait=\d+/)
    response.setHeader('content-type', TYPE)
    response.setHeader('etag', `"v${version}"`)
    if (request.headers['if-none-match'] === `"v${version}"`) held.push(response)
    else response.end(`bundle ${version}`)
  })
  const room = watching({ url: server.url })
  await using _source = room.source
  await until('the server holds the question', () => held.length > 0)
  version = 2
  held.pop()?.writeHead(304).end()
  await until('the second bundle', () => room.taken.length === 2)
  expect(room.taken).toEqual(['bundle 1', 'bundle 2'])
  expect(room.source.health()).toMatchObject({ state: 'OK', etag: '"v2"', error: null })
})

test('somebody who asks for a look waits for no server that holds the question, and what was dealt with comes again', async () => {
  let held = 0
  await using server = await serving((request, response) => {
    response.setHeader('content-type', TYPE).setHeader('etag', '"v1"')
    if (request.headers['if-none-match'] === '"v1"') held++
    else response.end('bundle 1')
  })
  const room = watching({ url: server.url })
  await using _source = room.source
  await until('the server holds the question', () => held === 1)
  expect([room.taken, room.forgiven]).toEqual([['bundle 1'], []])
  // Two who ask at once are told of one look.
  const both = await Promise.all([room.source.again(), room.source.again()])
  expect(both.map(({ state, error }) => [state, error])).toEqual([
    ['OK', null],
    ['OK', null],
  ])
  expect([room.taken, room.forgiven]).toEqual([['bundle 1', 'bundle 1'], [1]])
  await until('it waits again', () => held === 2)
  await room.source.again()
  expect(room.taken.length).toBe(3)
  expect(room.told).toEqual([])
})

test('a look that takes long is not told as the one before it', async () => {
  const file = join(folder, 'slow.tar')
  writeFileSync(file, 'one')
  const takes = [Promise.resolve(), Promise.withResolvers<void>()] as const
  let times = 0
  const source = new BundleSource(
    { file, poll_s: 3600 },
    {
      now: () => 1_000,
      report: () => undefined,
      forgive: () => undefined,
      take: () => (times++ === 0 ? takes[0] : takes[1].promise),
    },
  )
  source.start()
  await using _source = source
  await until('the first is through', () => source.health().state === 'OK')
  expect((await source.again(1)).state).toBe('WAITING')
  const asked = source.again()
  takes[1].resolve()
  expect((await asked).state).toBe('OK')
  expect(times).toBe(2)
})

test('a look that somebody asked for and that fails is told as it failed', async () => {
  const room = watching({ file: folder, poll_s: 3600 })
  await using _source = room.source
  await until('it has failed', () => room.source.health().state === 'FAILED')
  expect(await room.source.again()).toMatchObject({ error: 'what is there is no file' })
})

test('a server that says it waits and answers at once is not asked without a pause', async () => {
  let asked = 0
  await using server = await serving((request, response) => {
    asked++
    const known = request.headers['if-none-match'] === '"lie"'
    response.writeHead(known ? 304 : 200, { 'content-type': TYPE, etag: '"lie"' })
    response.end(known ? undefined : 'bundle')
  })
  const room = watching({ url: server.url, poll_s: 3600 })
  await using _source = room.source
  await until('it has been asked', () => asked >= 4)
  // Were it asked on, it would be in the time that these take, which go the same way. An answer that a slow machine gave
  // late counts as waited for, and some more follow.
  await until('nobody asks but this row', async () => {
    const before = asked
    for (let at = 0; at < 50; at++) await fetch(server.url)
    return asked - before === 50
  })
  expect(room.source.health()).toMatchObject({ state: 'OK', etag: '"lie"', checked_at: 1 })
})

test('what stands in the address for the server alone is not shown', async () => {
  await using server = await serving((_request, response) => void response.writeHead(404).end())
  const room = watching({ url: `${server.url}?token=hidden` })
  expect(room.source.health()).toEqual({
    from: server.url,
    state: 'WAITING',
    checked_at: null,
    etag: null,
    error: null,
  })
  await using _source = room.source
  await until('it has failed', () => room.source.health().state === 'FAILED')
  expect(JSON.stringify([room.source.health(), room.told])).not.toContain('hidden')
})

test('a token goes with each question, and is read anew', async () => {
  const seen: (string | undefined)[] = []
  const token = join(folder, 'token')
  writeFileSync(token, 'first\n')
  await using server = await serving((request, response) => {
    seen.push(request.headers.authorization)
    response.writeHead(200, { 'content-type': TYPE, etag: `"${seen.length}"` }).end('x')
  })
  await using _source = watching({ url: server.url, token_file: token, poll_s: 0.01 }).source
  await until('a first question', () => seen.length > 0)
  writeFileSync(token, 'second\n')
  await until('the other token', () => seen.includes('Bearer second'))
  expect(seen[0]).toBe('Bearer first')
})

test('a bundle that is refused is said once, and the next good one taken', async () => {
  let body = 'bad'
  let asked = 0
  await using server = await serving((_request, response) => {
    asked++
    response.writeHead(200, { 'content-type': TYPE, etag: `"${body}${asked}"` }).end(body)
  })
  const room = watching({ url: server.url, poll_s: 0.01 }, (text) => text === 'bad')
  await using _source = room.source
  await until('it is asked again', () => asked > 1)
  expect(room.told).toEqual(['Error: bundle.signature bad'])
  expect(room.source.health()).toMatchObject({ state: 'FAILED', error: 'bundle.signature bad' })
  body = 'good'
  await until('the good one', () => room.taken.includes('good'))
  expect(room.source.health().state).toBe('OK')
})

const broken: [string, (response: ServerResponse) => void, RegExp][] = [
  ['an answer of 500', (response) => void response.writeHead(500).end(), /answered 500/],
  [
    'a redirect elsewhere',
    (response) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
    /fetch failed: .*redirect/,
  ],
  [
    'a body without an end',
    (response) => void response.writeHead(200).write(Buffer.alloc(17 << 20)),
    /bundle\.size/,
  ],
  ['a connection that is cut', (response) => void response.destroy(), /fetch failed/],
]
test.for(broken)('%s is a failure, and not the end', async ([, answer, says]) => {
  await using server = await serving((_request, response) => answer(response))
  const room = watching({ url: server.url })
  await using _source = room.source
  await until('the failure is known', () => room.source.health().state === 'FAILED')
  expect(room.source.health().error).toMatch(says)
  expect(room.taken).toEqual([])
})

test('a pipe in the place of the file is said, and nobody waits for it', async () => {
  const file = join(folder, 'pipe')
  execFileSync('mkfifo', [file])
  const room = watching({ file, poll_s: 0.01 })
  await using _source = room.source
  await until('it is said', () => room.source.health().error !== null)
  expect(room.source.health().error).toBe('what is there is no file')
})

test('a file is read when it is there, and again when it is another', async () => {
  const file = join(folder, 'bundle.tar')
  const drop = (text: string) => {
    writeFileSync(`${file}.new`, text)
    renameSync(`${file}.new`, file)
  }
  const room = watching({ file, poll_s: 0.01 })
  await using _source = room.source
  drop('one')
  await until('the first', () => room.taken.length === 1)
  drop('two')
  await until('the second', () => room.taken.length === 2)
  expect(room.taken).toEqual(['one', 'two'])
})

/** The published contract: it describes every call there is, and no other; and the command line calls nothing else. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { send, startNode, type TestNode } from '../../support/node.ts'

type Content = Readonly<Record<string, { readonly schema: Schema }>>
interface Schema {
  readonly required: readonly string[]
  readonly properties: Readonly<Record<string, object>>
}
interface Operation {
  readonly operationId: string
  readonly tags: readonly string[]
  readonly responses: Readonly<Record<string, { readonly content?: Content }>>
}
interface Document {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

const root = join(import.meta.dirname, '../../..')
let node: TestNode
let document: Document
/** `post /grants/{id}/approve` and what is said of it. */
let calls: ReadonlyMap<string, Operation>

beforeAll(async () => {
  node = await startNode({ bare: true })
  const reply = await send<Document>(node, { method: 'GET', path: '/api/v1/openapi.json' })
  document = reply.body
  calls = new Map(
    Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]): [string, Operation] => [
        `${method} ${path.replace('/api/v1', '')}`,
        operation,
      ]),
    ),
  )
})
afterAll(async () => node[Symbol.asyncDispose]())

/** A path as it stands in a source, as a pattern: what is put in is one segment. */
function pattern(method: string, path: string): RegExp {
  const plain = path
    // What is put in first may itself be a path; the rest is enough to tell.
    .replace(/^\$\{[^}]*\}/, '<')
    .replaceAll(/\$\{[^}]*\}/g, '*')
    .replaceAll(/:[a-z]+/g, '*')
    .replace(/\?.*$/, '')
    .replaceAll(/[.+^{}()|[\]\\]/g, String.raw`\$&`)
    .replaceAll('*', '[^/]+')
    .replace('<', '/.+')
  return new RegExp(`^${method.toLowerCase()} ${plain.replace('/api/v1', '')}$`)
}

/** A source with its constant texts in place of their names. */
function spelledOut(source: string): string {
  const constants = new Map(
    [...source.matchAll(/^const ([A-Z_]+) = '([^']*)'$/gm)].map(([, name = '', text = '']) => [
      name,
      text,
    ]),
  )
  return source.replaceAll(
    /\$\{([A-Z_]+)\}/g,
    (whole, name: string) => constants.get(name) ?? whole,
  )
}

function found(folder: string, calling: RegExp): readonly { file: string; call: RegExp }[] {
  return readdirSync(join(root, folder))
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) =>
      [...spelledOut(readFileSync(join(root, folder, file), 'utf8')).matchAll(calling)].map(
        ([, method = '', plain, template = '']) => ({
          file,
          call: pattern(method === '' ? 'POST' : method, plain ?? template),
        }),
      ),
    )
}

/** Calls whose answer is a document of another kind than JSON. */
const RAW = new Set([
  'get /policy/bundle',
  'get /decisions',
  'get /audit/log/checkpoint',
  'get /audit/log/witnessed',
  'get /audit/log/tile/{*}',
  'get /recordings/{id}/parts/{track}/{part}',
])

test('is OpenAPI 3.1, and every call has a name of its own, a success and a refusal', () => {
  expect(document.openapi).toBe('3.1.0')
  expect(calls.size).toBeGreaterThan(60)
  const names = [...calls.values()].map(({ operationId }) => operationId)
  expect(new Set(names).size).toBe(names.length)
  for (const [call, { responses }] of calls) {
    const answers = Object.keys(responses).some((status) => status.startsWith('2'))
    expect([call, answers || RAW.has(call)]).toEqual([call, true])
  }
})

test('refuses as it says, whatever is called', async () => {
  const refusing = [...calls].filter(([call]) => call !== 'get /info')
  expect(refusing.length).toBeGreaterThan(60)
  for (const [call, { responses }] of refusing) {
    const [method = '', path = ''] = call.split(' ')
    // By nobody, about nothing.
    const reply = await send<Record<string, unknown>>(node, {
      method: method.toUpperCase(),
      path: `/api/v1${path.replaceAll(/\{[^}]*\}/g, 'x')}`,
      ...(method === 'get' ? {} : { body: {} }),
    })
    // Described under the media type of the call's own answers.
    const said = Object.values(responses['default']?.content ?? {})[0]?.schema
    expect([call, reply.status >= 400 && reply.status < 500]).toEqual([call, true])
    expect([call, reply.headers.get('content-type')]).toEqual([
      call,
      expect.stringContaining('application/problem+json'),
    ])
    const names = Object.keys(reply.body)
    expect([call, said?.required.filter((name) => !names.includes(name))]).toEqual([call, []])
    const more = names.filter((name) => !Object.hasOwn(said?.properties ?? {}, name))
    expect([call, more]).toEqual([call, []])
    expect([call, reply.body['status']]).toEqual([call, reply.status])
  }
})

test('has what the routes declare, and nothing else', () => {
  const declared = found(
    'gateway/listen/routes',
    /(?:server|calls)\.(get|post|put|delete)\(\s*(?:'(\/api\/v1\/[^']*)'|`(\/api\/v1\/[^`]*)`)/g,
  )
  expect(declared.length).toBeGreaterThan(60)
  const unknown = declared.filter(({ call }) => ![...calls.keys()].some((one) => call.test(one)))
  expect(unknown).toEqual([])
  const extra = [...calls.keys()].filter((one) => !declared.some(({ call }) => call.test(one)))
  expect(extra).toEqual([])
})

test('has every call of the command line', () => {
  const made = [
    ...found('cli/commands', /'(GET|POST|PUT)',\s*(?:'(\/[^']*)'|`((?:\/|\$\{)[^`]*)`)/g),
    // A question to a passkey is a POST.
    ...found('cli/commands', /byPasskey\(\s*api,\s*options,()\s*(?:'(\/[^']*)'|`([^`]*)`)/g),
  ]
  const asked = made.filter(({ call }) =>
    ['post /passkeys', 'post /step-up', 'post /grants/{id}/approval'].some((one) => call.test(one)),
  )
  expect(asked.length).toBeGreaterThanOrEqual(3)
  expect(made.length).toBeGreaterThan(30)
  expect(made.filter(({ call }) => ![...calls.keys()].some((one) => call.test(one)))).toEqual([])
})

/** What the module is handed is what the schema admits and the policy reads, and nothing that was not checked. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PolicyEngine } from '#policy'
import type { Input } from '#policy'
import { encodeInput, prepare } from '../../policy/input.ts'
import { readPaths, readsOf } from '../../policy/reads.ts'
import { compile, inputSchema } from '../../policy/schema.ts'
import { baseInputs, readVectors } from '../../policy/toolchain/vectors.ts'
import { builtin } from './fixture.ts'

const bases = await baseInputs()
const open = bases['session.open']
const whole = encodeInput(true)
const decoder = new TextDecoder('utf-8', { fatal: true })

function written(input: Input, encode = whole): unknown {
  const prepared = prepare(input.action, input, encode)
  return prepared.ok ? JSON.parse(decoder.decode(prepared.bytes)) : prepared.at
}

/** The whole string is this many bytes of JSON. */
function sized(bytes: number): Input {
  const groups = Array.from({ length: 100 }, () => 'g'.repeat(100))
  const filled = (length: number): Input => ({
    ...open,
    subject: { ...open.subject, groups, claims: { a: 'x'.repeat(1000), b: 'x'.repeat(length) } },
  })
  const more = bytes - JSON.stringify(filled(0)).length
  const rest = Math.max(0, more - 1000)
  const input = filled(Math.min(more, 1000))
  const extra = Array.from({ length: Math.ceil(rest / 100) }, (_, at) =>
    'y'.repeat(Math.min(97, rest - at * 100 - 3)),
  ).filter((text) => text.length > 0)
  return { ...input, subject: { ...input.subject, groups: [...groups, ...extra] } }
}

test('every vector is written as JSON.stringify would', async () => {
  for (const { input } of await readVectors()) expect(written(input)).toEqual(input)
})

test('odd strings, keys and numbers are written as JSON.stringify would', () => {
  const scalar = fc.oneof(
    fc.string({ maxLength: 60, unit: 'binary' }).filter((text) => !text.includes('\0')),
    fc.integer({ min: -(2 ** 53) + 1, max: 2 ** 53 - 1 }),
    fc.double({ noNaN: true, min: -1e15, max: 1e15 }),
    fc.boolean(),
    fc.constant(null),
  )
  const name = fc.string({ maxLength: 20 }).filter((text) => !text.includes('\0'))
  fc.assert(
    fc.property(fc.dictionary(name, scalar, { maxKeys: 8 }), (claims) => {
      const input = { ...open, subject: { ...open.subject, claims } }
      const expected: unknown = JSON.parse(JSON.stringify(input))
      const problem = compile(inputSchema)(input)
      if (problem === undefined) expect(written(input)).toEqual(expected)
      else expect(written(input)).toBe(problem.replace(/^[.:] ?/, ''))
    }),
    { numRuns: 60 },
  )
})

test('the two readings of the schema agree on what is an input', () => {
  const check = compile(inputSchema)
  fc.assert(
    fc.property(
      fc.constantFrom(...Object.keys(open)),
      fc.oneof(
        fc.anything().filter((value) => value !== undefined),
        fc.constantFrom(...Object.values(bases)),
      ),
      (name, value) => {
        const input = { ...open, [name]: value } as Input
        const problem = check(input)
        const found = written(input)
        if (problem !== undefined) expect(found).toBe(problem.replace(/^[.:] ?/, ''))
      },
    ),
    { numRuns: 500 },
  )
})

test('the limit is to the byte, fields that no rule reads included', () => {
  const reads = encodeInput(builtin.reads)
  for (const bytes of [16_000, 16_384]) {
    const input = sized(bytes)
    const length = JSON.stringify(input).length
    expect(typeof written(input), String(length)).toBe(length > 16_384 ? 'string' : 'object')
  }
  const input = sized(16_384)
  const over = { ...input, request_id: `${input.request_id}x`.repeat(3) }
  const excess = JSON.stringify(over).length
  expect(excess).toBeGreaterThan(16_384)
  expect(written(over)).toMatch(/longer than 16384 bytes/)
  expect(written(over, reads)).toMatch(/longer than 16384 bytes/)
})

test('a value is read once: what was checked is what is written', () => {
  let asked = 0
  const process = {
    ...open.process,
    get id() {
      asked++
      return asked === 1 ? 'plc' : 'other'
    },
  }
  expect(written({ ...open, process } as Input)).toMatchObject({ process: { id: 'plc' } })
  expect(asked).toBe(1)
})

describe('what a policy reads', () => {
  const rows: [string, string, string[]][] = [
    ['a path', 'a if input.device.id == "x"', ['input.device.id']],
    ['a path that ends in an index', 'input.a_b[0].c', ['input.a_b']],
    ['a key in brackets', 'input["device"].id', ['input']],
    ['everything', 'x := input', ['input']],
    ['a path broken over lines', 'input\n.device', ['input']],
    ['an import', 'import input.subject as s', ['input.subject']],
    ['a word that only ends so', 'myinput.x', []],
    ['a comment', '# the input is read\n', []],
    ['a string', 'x := "/input/subject"', []],
    ['a raw string', 'x := `input.a`', []],
    ['a quote in a string', 'x := "a\\"" ; input.b', ['input.b']],
    ['a comment sign in a string', 'x := "#" ; input.b', ['input.b']],
    ['a quote in a comment', '# don"t\ninput.c', ['input.c']],
    ['a template string', 'x := $"{input.a}"', ['input']],
    ['a quote that is never closed', 'x := "a\ninput.b', ['input', 'input.b']],
  ]
  test.for(rows)('%s', ([, source, paths]) => {
    expect(readPaths([source])).toEqual(paths)
  })

  test('is handed over, and nothing else', () => {
    const encode = encodeInput(readsOf(['input.device.id', 'input.grants', 'input.subject.claims']))
    expect(written(open, encode)).toEqual({
      device: { id: 'press-07' },
      grants: open.grants,
      subject: { claims: {} },
    })
  })

  test('a path within a dictionary, a path through __proto__', () => {
    const claims = JSON.parse('{"a":1,"b":2,"__proto__":3}') as Record<string, number>
    const input = { ...open, subject: { ...open.subject, claims } }
    const one = encodeInput(readsOf(['input.subject.claims.b']))
    expect(JSON.stringify(written(input, one))).toBe('{"subject":{"claims":{"b":2}}}')
    const odd = encodeInput(readsOf(['input.subject.claims.__proto__']))
    expect(JSON.stringify(written(input, odd))).toBe(
      '{"subject":{"claims":{"a":1,"b":2,"__proto__":3}}}',
    )
  })

  test('decides like the whole input, for every vector', async () => {
    const engines = [builtin, { ...builtin, reads: true as const }].map(async (bundle) => {
      const engine = PolicyEngine.unavailable()
      await engine.activate({ ...bundle, vectors: [] })
      return engine
    })
    const [some, all] = await Promise.all(engines)
    for (const { point, input } of await readVectors()) {
      const options = { decisionId: 'd' }
      expect(some?.decide(point, input, options)).toEqual(all?.decide(point, input, options))
    }
  })
})

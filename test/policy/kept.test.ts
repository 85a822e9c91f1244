/** What stays in the module's memory from one input to the next is what the next one says, whatever came between. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Input } from '#policy'
import { Page } from '../../policy/encode.ts'
import { encodeInput } from '../../policy/input.ts'
import { CompiledPolicy } from '../../policy/module.ts'
import { Placer } from '../../policy/place.ts'
import { ENTRYPOINTS, POINTS } from '../../policy/points.ts'
import { inputSchema } from '../../policy/schema.ts'
import { baseInputs } from '../../policy/toolchain/vectors.ts'
import { builtin } from './fixture.ts'

const bases = await baseInputs()
const open = bases['session.open']
const compiled = await CompiledPolicy.compile(builtin.wasm, builtin.dataText, ENTRYPOINTS, true)
const { shape } = compiled.image
if (shape === undefined) throw new Error('the built-in module has no known shape')
const instance = compiled.instance()
const placer = new Placer(inputSchema, true, shape, instance.ground)
const encode = encodeInput(true)
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** What the module finds of an input, and how many bytes of text were counted; or why it is refused. */
function found(input: unknown): unknown {
  const page = new Page()
  const problem = placer.encode(input, page)
  return problem ?? { found: instance.readPlaced(placer.take()).printed, bytes: page.at }
}
/** The same of the input as text, which leaves nothing for the next one. */
function alone(input: unknown): unknown {
  const page = new Page()
  const problem = encode(input, page)
  if (problem !== undefined) return problem
  const text = decoder.decode(page.bytes.subarray(0, page.at))
  return { found: JSON.parse(text) as unknown, bytes: page.at }
}
const asking = (request_id: unknown, more: object = {}) => ({ ...open, request_id, ...more })

test.for([
  ['a text longer than what is kept, between two that are not', ['r-1', 'x'.repeat(120), 'r-1']],
  ['as long as what is kept, of three bytes a character', ['r-1', '\u20ac'.repeat(72), 'r-2']],
  ['a longer and a shorter one in its place', ['aaaaaaaa', 'bb', 'aaaaaaaa', '']],
  ['null between two texts', ['r-1', null, 'r-1']],
  ['an escape in place of plain text', ['a', '"', 'a', '\u00e4']],
])('%s', ([, ids]) => {
  for (const id of ids as unknown[]) {
    const input = asking(id)
    expect(found(input)).toEqual(alone(input))
    // What lies behind it in memory is untouched.
    expect(found(input)).toMatchObject({ found: { tenant: open.tenant, action: open.action } })
  }
})

test('numbers that are equal are one, and one that is none was never kept', () => {
  const at = (epoch_s: unknown) => ({ ...open, time: { ...open.time, epoch_s } })
  for (const epoch_s of [0, -0, 7, 2 ** 53 - 1, 7])
    expect(found(at(epoch_s))).toEqual(alone(at(epoch_s)))
  for (const bad of [Number.NaN, '7', 7.5, 2 ** 53, [7], { valueOf: () => 7 }])
    for (const before of [7, bad]) {
      found(at(before))
      expect(found(at(bad))).toMatch(/^\.time\.epoch_s: not/)
    }
  expect(found(at(7))).toEqual(alone(at(7)))
})

test.for([
  ['refused', 'bb\0'],
  ['made well-formed', 'bb\ud800'],
])('a text in whose place another was begun, which was %s, is set down again', ([, between]) => {
  for (const id of ['aaaa', between, 'aaaa']) found(asking(id))
  expect(found(asking('aaaa'))).toEqual(alone(asking('aaaa')))
  found(asking(between))
  expect(found(asking('aaaa'))).toEqual(alone(asking('aaaa')))
})

test('an object that was changed since is read anew', () => {
  const device = { ...open.device!, cert: { ...open.device!.cert } }
  const grants = structuredClone(open.grants) as unknown as { state: string; devices: string[] }[]
  const input = { ...open, device, grants }
  found(input)
  device.cert.serial = '77'
  device.zone = 'elsewhere'
  grants[0]!.state = 'revoked'
  grants[0]!.devices.push('press-08', 'press-09', 'press-10')
  expect(found(input)).toEqual(alone(input))
})

test('a lone surrogate is noticed every time it comes', () => {
  for (const _ of [0, 1, 2]) {
    const page = new Page()
    expect(placer.encode(asking('a\ud800'), page)).toBeUndefined()
    expect(page.repaired).toBe(true)
  }
  const page = new Page()
  placer.encode(asking('a\ufffd'), page)
  expect(page.repaired).toBe(false)
})

test('a part that is not there, and there again; lists that become longer and shorter', () => {
  const [grant] = open.grants
  const counts = [1, 2, 3, 0, 1, 5, 2]
  for (const count of counts)
    for (const device of [null, open.device]) {
      const grants = Array.from({ length: count }, (_, at) => ({ ...grant, id: `g_${at}` }))
      const groups = Array.from({ length: count }, (_, at) => `group-${at}`)
      const input = { ...open, device, grants, subject: { ...open.subject, groups } }
      expect(found(input)).toEqual(alone(input))
    }
})

test('whatever was refused half way, and in whatever order keys come, the next is itself', () => {
  const part = fc.constantFrom(...Object.keys(open))
  const odd = fc.oneof(fc.anything(), fc.string({ unit: 'binary', maxLength: 90 }))
  const step = fc.record({
    base: fc.constantFrom(...Object.values(bases)),
    part,
    odd,
    turned: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 6 }), (steps) => {
      for (const { base, part: name, odd: value, turned } of steps) {
        found({ ...base, [name]: value })
        const entries = Object.entries(base)
        const input = Object.fromEntries(turned ? entries.toReversed() : entries)
        expect(found(input)).toEqual(alone(input))
      }
    }),
    { numRuns: 20 },
  )
})

test('an instance that is asked by text between two inputs finds the second one whole', () => {
  const { entrypoint } = POINTS['session.open']
  const placed = (input: Input) => {
    expect(placer.encode(input, new Page())).toBeUndefined()
    return instance.evaluatePlaced(entrypoint, placer.take())
  }
  const before = placed(open)
  const text = JSON.stringify({ ...bases['grant.request'], request_id: 'x'.repeat(900) })
  instance.evaluate(POINTS['grant.request'].entrypoint, text)
  expect(placed(open)).toEqual(before)
  expect(instance.evaluate(entrypoint, JSON.stringify(open))).toEqual(before)
})

test('what stays takes little of the room that is made for it', () => {
  expect(instance.ground.base - compiled.image.dataHeapPtr).toBeLessThan(96 * 1024)
})

/** What a mask takes out of a decision record, and that one which cannot be read lets nothing through. */
import { expect, test } from 'vitest'
import { masking } from '#policy'
import { examineBundle } from '../../policy/candidate.ts'
import { applyMask, readMask } from '../../policy/mask.ts'
import { baseInputs } from '../../policy/toolchain/vectors.ts'
import { builtin, handmade, withModule } from './fixture.ts'

const record = () =>
  JSON.parse(
    `{"input":{"subject":{"email":"e","claims":{"a/b":1,"__proto__":2}},"list":[0,1,2,3]},"result":{"allow":true},"id":7}`,
  ) as Record<string, unknown>
const masked = (raw: unknown) => applyMask(record(), readMask(raw))

const rows: [string, unknown, object, readonly string[], readonly string[]][] = [
  ['nothing', [], record(), [], []],
  [
    'a value',
    ['/input/subject/email'],
    { input: { subject: { claims: {} } } },
    ['/input/subject/email'],
    [],
  ],
  ['all of the input', ['/input'], { result: { allow: true }, id: 7 }, ['/input'], []],
  [
    'a name with a slash in it',
    ['/input/subject/claims/a%2Fb'],
    { input: { subject: { email: 'e', claims: {} } } },
    ['/input/subject/claims/a%2Fb'],
    [],
  ],
  [
    'another value in its place',
    [{ op: 'upsert', path: '/input/subject/email', value: '**' }],
    { input: { subject: { email: '**' } } },
    [],
    ['/input/subject/email'],
  ],
  ['what is not there', ['/input/nobody/email', '/input/subject/email/more'], record(), [], []],
  [
    'a place in a list that is not there',
    ['/input/list/9', { op: 'upsert', path: '/input/list/length', value: 0 }],
    { input: { list: [0, 1, 2, 3] } },
    [],
    [],
  ],
]
test.for(rows)('%s', ([, raw, out, erased, changed]) => {
  const found = masked(raw)
  expect(found.record).toMatchObject(out)
  expect([found.erased, found.masked]).toEqual([erased, changed])
})

test('several places of one list are those that were named, whatever the order', () => {
  const { record: out } = masked(['/input/list/0', '/input/list/2', '/input/list/1'])
  expect(out).toMatchObject({ input: { list: [3] } })
})

test('what one rule removes no other brings back', () => {
  const upsert = { op: 'upsert', path: '/input/subject/email', value: 'again' }
  for (const raw of [
    ['/input/subject', upsert],
    [upsert, '/input/subject'],
  ])
    expect(Object.keys(masked(raw).record['input'] as object)).toEqual(['list'])
})

test('a key that objects inherit from is a key like any other', () => {
  const path = '/input/subject/claims/__proto__'
  expect(masked([path]).erased).toEqual([path])
  const { record: out } = masked([
    { op: 'upsert', path: '/input/__proto__', value: { polluted: 1 } },
  ])
  expect(Object.hasOwn(out['input'] as object, '__proto__')).toBe(true)
  expect('polluted' in {}).toBe(false)
})

test.for([
  undefined,
  null,
  {},
  'input',
  [7],
  [null],
  ['input/subject'],
  ['/custom/subject'],
  ['/decision_id'],
  [''],
  ['/'],
  ['/input/%'],
  [`/input/${'a'.repeat(2000)}`],
  [{ op: 'drop', path: '/input' }],
  [{ op: 'upsert', path: '/input' }],
  [{ op: 'remove' }],
  Array.from({ length: 2000 }, () => '/input'),
])('%j is no mask', (raw) => {
  expect(() => readMask(raw)).toThrow(expect.objectContaining({ code: 'mask.failed' }))
})

test('the default policy takes out addresses and claims, and says so', async () => {
  const input = (await baseInputs())['session.open']
  const mask = masking(await examineBundle(builtin))
  const found = mask({ decision_id: 'd_1', input, result: { allow: true } })
  expect(found.erased).toEqual(['/input/subject/claims', '/input/subject/email'])
  expect(Object.keys(found.record.input.subject)).not.toContain('email')
  expect(found.record.input.subject.id).toBe(input.subject.id)
})

test.for([
  'trap',
  'abort',
  'grow',
  '[]',
  '[{"result":{"allow":true}}]',
  '[{"result":["/nothing"]}]',
])('a module that answers with %s masks nothing, and throws', async (evaluation) => {
  const candidate = await examineBundle(withModule(handmade({ evaluation })))
  const mask = masking(candidate)
  expect(() => mask({ input: {} })).toThrow(expect.objectContaining({ code: 'mask.failed' }))
})

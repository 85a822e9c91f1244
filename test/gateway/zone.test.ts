/** A zone that policy does not describe: refused where a device is added, and told as what it is where one is refused. */
import { expect, test } from 'vitest'
import { requireZone, toldIn } from '../../gateway/zone.ts'

const knowing = (...zones: readonly string[]) => ({ zones: () => zones })
const many = Array.from({ length: 20 }, (_, at) => `hall-${at}`)

test.for([
  ['one', ['default'], 'it describes default'],
  ['several', ['critical', 'default'], 'it describes critical, default'],
  ['none', [], 'it describes none'],
  ['more than a sentence holds', many, `${many.slice(0, 12).join(', ')} and 8 more`],
] as const)('refused with the zones there are: %s', ([, zones, says]) => {
  expect(() => requireZone('hall-z', knowing(...zones))).toThrow(
    expect.objectContaining({
      code: 'zone.unknown',
      detail: expect.stringMatching(new RegExp(`no zone hall-z; .*${says}$`)) as string,
    }) as Error,
  )
})

test('one that is described is taken; where no policy is in force, its own refusal comes first', () => {
  expect(() => requireZone('default', knowing('default'))).not.toThrow()
  expect(() => requireZone('hall-z', { zones: () => undefined })).not.toThrow()
})

const unknown = { code: 'zone.unknown', msg: 'the zone is unknown or its rules are incomplete' }
const follows = { code: 'enroll.serial_mismatch', msg: 'the claimed serial number is not it' }

test('what follows from a zone that is not described is not told; every other denial is', () => {
  expect(toldIn('hall-z', [unknown, follows], knowing('default'))).toEqual([
    { code: 'zone.unknown', msg: 'the policy in force describes no zone hall-z' },
  ])
  for (const denials of [[follows], [unknown, follows]])
    expect(toldIn('default', denials, knowing('default'))).toEqual(denials)
  expect(toldIn('hall-z', [follows], knowing('default'))).toEqual([follows])
})

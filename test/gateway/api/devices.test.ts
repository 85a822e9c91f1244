/** What a declaration of a process may say: exact facts, any of them left out, none of them a pattern. */
import { Value } from 'typebox/value'
import { expect, test } from 'vitest'
import { Expectation } from '#api'

const digest = 'a'.repeat(64)

test.for([
  [
    'every fact',
    {
      exe: ['/opt/plc'],
      sha256: [digest],
      script_sha256: [digest],
      uid: [1],
      unit: ['plc.service'],
      image: [`sha256:${digest}`],
    },
    true,
  ],
  ['some of them', { sha256: [digest], uid: [0] }, true],
  ['several approved builds', { sha256: [digest, 'b'.repeat(64)] }, true],
  ['none', {}, true],
  ['a path with a star', { exe: ['/opt/plc*'] }, false],
  ['a path with a question mark', { exe: ['/opt/plc?'] }, false],
  ['a path that is not absolute', { exe: ['plc'] }, false],
  ['a unit with a star', { unit: ['plc*.service'] }, false],
  ['a unit without its kind', { unit: ['plc'] }, false],
  ['an instance of a unit', { unit: ['plc@7.service'] }, true],
  ['an image by its tag', { image: ['plc:latest'] }, false],
  ['part of a digest', { sha256: ['a'.repeat(12)] }, false],
  ['an empty list, which nothing could meet', { exe: [] }, false],
  ['a fact that there is not', { cmdline: ['x'] }, false],
] as const)('%s: %s', ([, expectation, valid]) => {
  expect(Value.Check(Expectation, expectation)).toBe(valid)
})

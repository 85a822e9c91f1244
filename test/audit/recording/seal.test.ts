/** age v1 as it is written here: opened again, by us and by age itself, and refused wherever an octet is another. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AuditError } from '#audit'
import {
  formatIdentity,
  identityOf,
  parseIdentities,
  parseRecipient,
  type Identity,
} from '../../../audit/recording/keys.ts'
import { countRecipients, openSealed, Sealer, type Mark } from '../../../audit/recording/seal.ts'
import { temporary } from '../fixture.ts'

const CHUNK = 64 * 1024
const has = (program: string) => spawnSync(program, ['--version']).status === 0
const [anna, bert, mallory] = [1, 2, 3].map((n) => identityOf(new Uint8Array(32).fill(n))) as [
  Identity,
  Identity,
  Identity,
]
const random = (bytes: number) => randomBytes(bytes)
const MARK: Mark = { type: 'sallyport-part-v1', args: ['s_1', '1', '1', '-'] }

function seal(plain: Uint8Array, cuts: readonly number[] = [], to = [anna, bert]): Buffer {
  const sealer = new Sealer(
    to.map(({ recipient }) => recipient),
    [MARK],
    random,
  )
  const out: Uint8Array[] = [sealer.header]
  let at = 0
  for (const cut of [...cuts, plain.length]) {
    out.push(sealer.push(plain.subarray(at, cut)))
    at = cut
  }
  return Buffer.concat([...out, sealer.end()])
}

function codeOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof AuditError) return error.code
    throw error
  }
  return 'nothing'
}

const sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7]

describe('sealing and opening', () => {
  test.for(sizes)('%i octets, for each of those it was sealed to', (size) => {
    const plain = randomBytes(size)
    const file = seal(plain)
    for (const identity of [anna, bert]) {
      const opened = openSealed(file, [mallory, identity])
      expect(Buffer.compare(opened.plain, plain)).toBe(0)
      expect(opened.complete).toBe(true)
      expect(opened.marks).toEqual([MARK])
    }
    expect(countRecipients(file)).toBe(2)
  })

  test('how the content arrives makes no difference', () => {
    const plain = randomBytes(2 * CHUNK + 5)
    fc.assert(
      fc.property(fc.array(fc.nat(plain.length), { maxLength: 8 }), (cuts) => {
        const file = seal(
          plain,
          cuts.toSorted((a, b) => a - b),
        )
        expect(Buffer.compare(openSealed(file, [anna]).plain, plain)).toBe(0)
      }),
      { numRuns: 30 },
    )
  })

  test('a chunk leaves memory as soon as it is known not to be the last', () => {
    const sealer = new Sealer([anna.recipient], [], random)
    expect(sealer.push(new Uint8Array(CHUNK))).toHaveLength(0)
    expect(sealer.push(new Uint8Array(1))).toHaveLength(CHUNK + 16)
  })

  test('whom it was not sealed to opens nothing', () => {
    expect(codeOf(() => openSealed(seal(randomBytes(9)), [mallory]))).toBe('recording.identity')
  })

  test('nobody to seal to, and a key that shares nothing, are refused', () => {
    expect(codeOf(() => new Sealer([], [], random))).toBe('recording.key')
    const zero = { text: 'age1zero', key: new Uint8Array(32) }
    expect(codeOf(() => new Sealer([zero], [], random))).toBe('recording.key')
  })
})

describe('an octet that is another', () => {
  const plain = randomBytes(2 * CHUNK + 100)
  const file = seal(plain)
  const headerEnd = file.indexOf('\n--- ') + 5 + 43 + 1
  const places = [
    ...Array.from({ length: headerEnd + 16 }, (_, at) => at),
    ...[0, 1, CHUNK - 1, CHUNK, CHUNK + 15, CHUNK + 16, 2 * CHUNK + 32].map(
      (at) => headerEnd + 16 + at,
    ),
    file.length - 17,
    file.length - 16,
    file.length - 1,
  ]
  test(`is found at each of ${places.length} places, by both auditors`, () => {
    const passed: number[] = []
    for (const at of places)
      for (const identity of [anna, bert]) {
        const changed = Buffer.from(file)
        changed[at] = (changed[at] ?? 0) ^ 1
        const code = codeOf(() => openSealed(changed, [identity]))
        // Where the stanza of this one is hit, the key is not theirs any more.
        if (code !== 'recording.sealed' && code !== 'recording.identity') passed.push(at)
      }
    expect(passed).toEqual([])
  })

  const whole = seal(randomBytes(3 * CHUNK))
  const start = whole.indexOf('\n--- ') + 5 + 43 + 1 + 16
  const step = CHUNK + 16
  test.for([
    ['cut off behind a chunk', whole.subarray(0, start + step)],
    ['cut off within a chunk', whole.subarray(0, start + step + 9)],
    ['without its content', whole.subarray(0, start)],
    ['without its nonce', whole.subarray(0, start - 3)],
    ['with more behind it', Buffer.concat([whole, Buffer.from('x')])],
    [
      'with two chunks in the other order',
      Buffer.concat([
        whole.subarray(0, start),
        whole.subarray(start + step, start + 2 * step),
        whole.subarray(start, start + step),
        whole.subarray(start + 2 * step),
      ]),
    ],
    [
      'with a chunk left out',
      Buffer.concat([whole.subarray(0, start + step), whole.subarray(start + 2 * step)]),
    ],
    ['empty', new Uint8Array(0)],
  ] as const)('a file %s is refused', ([, bytes]) => {
    expect(codeOf(() => openSealed(bytes, [anna]))).toBe('recording.sealed')
  })

  test('a header that means the same but is written otherwise is refused', () => {
    const text = file.toString('latin1')
    const rows = [
      text.replace('-> X25519 ', '->  X25519 '),
      text.replace('\n--- ', '\n---  '),
      text.replace('age-encryption.org/v1\n', 'age-encryption.org/v1\r\n'),
      text.replace(/(-> X25519 \S+)\n/, '$1=\n'),
    ]
    for (const row of rows)
      expect(codeOf(() => openSealed(Buffer.from(row, 'latin1'), [anna]))).toBe('recording.sealed')
  })
})

describe('a file that was being written', () => {
  const plain = randomBytes(2 * CHUNK + 500)
  const file = seal(plain)
  const start = file.indexOf('\n--- ') + 5 + 43 + 1 + 16
  test.for([
    [start, 0],
    [start + 100, 0],
    [start + CHUNK + 16, CHUNK],
    [start + CHUNK + 17, CHUNK],
    [start + 2 * (CHUNK + 16), 2 * CHUNK],
    [file.length - 1, 2 * CHUNK],
  ])('of %i octets opens as far as its whole chunks go: %i', ([size, whole]) => {
    const opened = openSealed(file.subarray(0, size), [anna], { torn: true })
    expect(opened.complete).toBe(false)
    expect(Buffer.compare(opened.plain, plain.subarray(0, whole))).toBe(0)
  })
})

describe('keys', () => {
  test('are read as they are written', () => {
    expect(parseRecipient(anna.recipient.text)).toEqual(anna.recipient)
    const text = `# created today\n# public key: x\n${formatIdentity(anna)}\n\n${formatIdentity(bert)}\n`
    expect(parseIdentities(text)).toEqual([anna, bert])
  })

  const good = anna.recipient.text
  test.for<[string, string]>([
    ['a letter changed', `${good.slice(0, -1)}${good.endsWith('q') ? 'p' : 'q'}`],
    ['a letter missing', good.slice(0, -1)],
    ['upper case', good.toUpperCase()],
    ['mixed case', `A${good.slice(1)}`],
    ['a secret key', formatIdentity(anna)],
    ['another kind', 'age1pq1qqqq'],
    ['nothing', ''],
  ])('a public key with %s is refused', ([, text]) => {
    expect(codeOf(() => parseRecipient(text))).toBe('recording.key')
  })
  test('a file without a secret key is refused', () => {
    expect(codeOf(() => parseIdentities('# nothing\n'))).toBe('recording.key')
    expect(codeOf(() => parseIdentities(good))).toBe('recording.key')
  })
})

describe.skipIf(!has('age'))('age itself (Debian package age)', () => {
  test.for(sizes)('opens what we sealed, %i octets', (size) => {
    const directory = temporary()
    const plain = randomBytes(size)
    writeFileSync(join(directory, 'key'), formatIdentity(bert))
    writeFileSync(join(directory, 'file.age'), seal(plain))
    const opened = spawnSync('age', ['-d', '-i', 'key', 'file.age'], { cwd: directory })
    expect(opened.stderr.toString()).toBe('')
    expect(Buffer.compare(opened.stdout, plain)).toBe(0)
  })

  test.for(sizes)('seals what we open, %i octets', (size) => {
    const directory = temporary()
    const plain = randomBytes(size)
    writeFileSync(join(directory, 'plain'), plain)
    const args = ['-r', anna.recipient.text, '-r', bert.recipient.text, '-o', 'file.age', 'plain']
    expect(spawnSync('age', args, { cwd: directory }).status).toBe(0)
    const file = readFileSync(join(directory, 'file.age'))
    expect(Buffer.compare(openSealed(file, [bert]).plain, plain)).toBe(0)
  })

  test('a key pair of age-keygen is one of ours, and the other way round', () => {
    const directory = temporary()
    spawnSync('age-keygen', ['-o', 'key'], { cwd: directory })
    const text = readFileSync(join(directory, 'key'), 'utf8')
    const [identity] = parseIdentities(text)
    expect(text).toContain(identity?.recipient.text)
    writeFileSync(join(directory, 'own'), formatIdentity(anna))
    const shown = spawnSync('age-keygen', ['-y', 'own'], { cwd: directory })
    expect(shown.stdout.toString().trim()).toBe(anna.recipient.text)
  })
})

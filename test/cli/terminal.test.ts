/** The way out of a program's terminal: `~.` at the beginning of a line, and nothing else. */
import { expect, test } from 'vitest'
import { Escape } from '../../cli/terminal.ts'

const rows = [
  { name: 'at the very beginning', keys: ['~.'], passes: '', leaves: 1 },
  { name: 'after a line', keys: ['ls\r~.'], passes: 'ls\r', leaves: 1 },
  { name: 'key by key', keys: ['l', '\r', '~', '.'], passes: 'l\r', leaves: 1 },
  { name: 'in the middle of a line', keys: ['cd ~.'], passes: 'cd ~.', leaves: 0 },
  { name: 'two tildes are one', keys: ['~~.'], passes: '~.', leaves: 0 },
  { name: 'another key after the tilde', keys: ['~', 'a.'], passes: '~a.', leaves: 0 },
  { name: 'a line that ends after the tilde', keys: ['~\r~.'], passes: '~\r', leaves: 1 },
] as const

test.for(rows)('$name', async ({ keys, passes, leaves }) => {
  let left = 0
  const escape = new Escape(() => left++)
  let passed = ''
  escape.setEncoding('utf8').on('data', (text: string) => (passed += text))
  for (const key of keys) escape.write(key)
  escape.end()
  await new Promise((done) => escape.once('end', done))
  expect([passed, left]).toEqual([passes, leaves])
})

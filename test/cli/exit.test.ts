import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { exits } from '../../cli/exit.ts'
import { buildProgram } from '../../cli/main.ts'

const page = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8')

test('docs/cli.md has the table of exit codes', () => {
  const rows = [...page.matchAll(/^\| (\d+) \| (.+) \|$/gm)].map(([, code, meaning]) => ({
    code: Number(code),
    meaning,
  }))
  expect(rows).toEqual(Object.values(exits))
})

test('codes are distinct', () => {
  const codes = Object.values(exits).map(({ code }) => code)
  expect(new Set(codes).size).toBe(codes.length)
})

test('docs/cli.md names every command', () => {
  const agent = /^agent\b/
  const names = buildProgram().commands.flatMap((command) =>
    command.commands.length === 0
      ? [command.name()]
      : command.commands.map((inner) => `${command.name()} ${inner.name()}`),
  )
  expect(names.length).toBeGreaterThan(20)
  const wanted = names.filter((name) => !agent.test(name))
  expect(wanted.filter((name) => !page.includes(`\`${name}`))).toEqual([])
})

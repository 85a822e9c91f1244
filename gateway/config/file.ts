/** The YAML file: a mistake in it is told with its line and column, and paths in it begin where it lies. */
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { isMap, isScalar, LineCounter, parseDocument, type Document } from 'yaml'
import { ConfigError } from './errors.ts'
import { settled } from './paths.ts'
import { DEFAULTS, firstProblem } from './schema.ts'

/**
 * What the file says, its paths absolute. Throws ConfigError: `config.unreadable`, `config.syntax`, `config.value`, with the
 * line and the column.
 */
export function readFile(path: string): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new ConfigError('config.unreadable', path, 'the file cannot be read', { cause })
  }
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true })
  const fault = document.errors[0]
  if (fault !== undefined) {
    const at = lines.linePos(fault.pos[0])
    throw new ConfigError(
      'config.syntax',
      `${path}:${at.line}:${at.col}`,
      fault.message.split('\n')[0] ?? 'not YAML',
    )
  }
  const value: unknown = document.toJS() ?? {}
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ConfigError(
      'config.syntax',
      `${path}:1:1`,
      'the file must be a mapping of keys to values',
    )
  const problem = firstProblem({ ...DEFAULTS, ...value })
  if (problem !== undefined)
    throw new ConfigError(
      'config.value',
      place(path, document, lines, problem.path),
      problem.message,
    )
  return settled(value as Record<string, unknown>, dirname(path))
}

/** Where in the file a JSON pointer stands: the deepest part of it that is there. */
function place(path: string, document: Document, lines: LineCounter, pointer: string): string {
  let node: unknown = document.contents
  let offset = 0
  for (const part of pointer.split('/').slice(1)) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === part)
      if (pair === undefined) break
      offset = (isScalar(pair.key) ? pair.key.range?.[0] : undefined) ?? offset
      node = pair.value
    } else if (
      typeof node === 'object' &&
      node !== null &&
      'items' in node &&
      Array.isArray(node.items)
    ) {
      node = node.items[Number(part)]
      if (typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range))
        offset = (node.range as number[])[0] ?? offset
    } else break
  }
  const at = lines.linePos(offset)
  return `${path}:${at.line}:${at.col}`
}

/**
 * A policy tree: the rules, data and vectors a bundle is made of. The product's own, or a security
 * team's folder put beside the library in a place of its own, because the module embeds the paths it
 * was compiled from: the same folder gives the same bytes wherever it lies.
 */
import { cp, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CATALOGUE, isSentence, REASONS } from '../catalogue.ts'
import type { CatalogueRow } from '../catalogue.ts'
import { BASE, ROOM } from './sources.ts'

export interface PolicyTree {
  /** The directory that the compiler runs in. */
  readonly base: string
  /** What the folders of Rego are named from; below `base`. */
  readonly room: string
  /** From `base` to `room`: '' or a path with its last slash. */
  readonly prefix: string
  /** Folder of the rules in `room`; the library lies beside it as `sallyport`. */
  readonly rules: string
  readonly manifest: string
  readonly site: string
  /** Folder of the vectors that travel in the bundle. */
  readonly vectors: string
  /** Folder of the decision vectors: base.json and rows. */
  readonly rows: string
  /** Denials by code, and reasons: what the rules may say, in which words. */
  readonly codes: Readonly<Record<string, CatalogueRow>>
  readonly reasons: Readonly<Record<string, string>>
  /** Next steps that travel in the bundle, by code: those that the gateway does not have itself. */
  readonly next: Readonly<Record<string, string>>
}

/** The product's own policy. */
export const DEFAULT_TREE: PolicyTree = {
  base: BASE,
  room: ROOM,
  prefix: 'policy/',
  rules: 'default',
  manifest: join(ROOM, 'default', 'manifest.json'),
  site: join(ROOM, 'default', 'site.json'),
  vectors: join(ROOM, 'default', 'vectors'),
  rows: join(BASE, 'test', 'vectors', 'decisions'),
  codes: CATALOGUE,
  reasons: REASONS,
  next: {},
}

/** What is wrong with a folder that should be a policy tree. */
export class TreeError extends Error {
  override readonly name = 'TreeError'
  readonly code = 'policy.tree'
  /** What to do about it. */
  readonly next: string
  constructor(message: string, next: string, options?: ErrorOptions) {
    super(message, options)
    this.next = next
  }
}

const NEEDED = ['rules', 'manifest.json', 'site.json', 'vectors', 'tests', 'codes.json'] as const

async function codesOf(path: string): Promise<{
  readonly denials: Readonly<Record<string, CatalogueRow>>
  readonly reasons: Readonly<Record<string, string>>
}> {
  let value: unknown
  try {
    value = JSON.parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw new TreeError(
      `${path} is not JSON`,
      'mend it; it looks like {"denials": {}, "reasons": {}}',
      { cause },
    )
  }
  const { denials, reasons } = (value ?? {}) as { denials?: unknown; reasons?: unknown }
  if (
    typeof denials !== 'object' ||
    denials === null ||
    typeof reasons !== 'object' ||
    reasons === null
  )
    throw new TreeError(
      `${path} lacks denials or reasons`,
      'it looks like {"denials": {"code": {"msg": "…", "next": "…"}}, "reasons": {"code": "…"}}',
    )
  for (const [code, row] of Object.entries(denials as Record<string, Partial<CatalogueRow>>))
    if (!isSentence(row.msg) || !isSentence(row.next))
      throw new TreeError(
        `${path}: ${code} lacks msg or next`,
        'give both as one sentence each, on one line of at most 512 characters',
      )
  return {
    denials: denials as Record<string, CatalogueRow>,
    reasons: reasons as Record<string, string>,
  }
}

/** A staged tree; leaving the block removes the stage. */
export interface StagedTree extends PolicyTree, AsyncDisposable {}

/**
 * Puts a security team's folder (made by `starter`) beside this release's library.
 * Takes its path. Gives the tree, to be disposed. Errors: TreeError `policy.tree`, with a next step.
 */
export async function stageTree(directory: string): Promise<StagedTree> {
  for (const name of NEEDED)
    if ((await stat(join(directory, name)).catch(() => undefined)) === undefined)
      throw new TreeError(
        `${directory} is no policy folder: ${name} is missing`,
        'make one with: sallyport policy new DIR',
      )
  const { denials, reasons } = await codesOf(join(directory, 'codes.json'))
  const stage = await mkdtemp(join(tmpdir(), 'sallyport-policy-'))
  try {
    await cp(join(directory, 'rules'), join(stage, 'rules'), { recursive: true })
    await cp(join(ROOM, 'sallyport'), join(stage, 'sallyport'), { recursive: true })
    // The vectors are run by the library's own test, whatever the team tests besides.
    await cp(
      join(ROOM, 'default', 'vectors_test.rego'),
      join(stage, 'sallyport', 'vectors_test.rego'),
    )
    await cp(join(ROOM, 'schema'), join(stage, 'schema'), { recursive: true })
    await cp(join(ROOM, 'capabilities.json'), join(stage, 'capabilities.json'))
    await noStrangers(join(stage, 'rules'))
  } catch (error) {
    await rm(stage, { recursive: true, force: true })
    throw error
  }
  return {
    base: stage,
    room: stage,
    prefix: '',
    rules: 'rules',
    manifest: join(directory, 'manifest.json'),
    site: join(directory, 'site.json'),
    vectors: join(directory, 'vectors'),
    rows: join(directory, 'tests'),
    codes: { ...CATALOGUE, ...denials },
    next: Object.fromEntries(Object.entries(denials).map(([code, { next }]) => [code, next])),
    reasons: { ...REASONS, ...reasons },
    [Symbol.asyncDispose]: async () => rm(stage, { recursive: true, force: true }),
  }
}

/** Rules are files of one folder: what lies deeper would be tested and not built. */
async function noStrangers(rules: string): Promise<void> {
  for (const entry of await readdir(rules, { withFileTypes: true }))
    if (!entry.isFile())
      throw new TreeError(
        `rules/${entry.name} is not a file`,
        'keep every .rego file directly in rules/',
      )
}

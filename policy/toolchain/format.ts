/** Writing the compiler's format back into a security team's folder. */
import { copyFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFormat } from './check.ts'
import type { Gate } from './check.ts'
import type { Opa } from './opa.ts'
import { stageTree } from './tree.ts'

/** Formats the rules of a folder in place. Errors: TreeError `policy.tree`. */
export async function formatTree(opa: Opa, directory: string): Promise<Gate> {
  await using tree = await stageTree(directory)
  const gate = await writeFormat(opa, tree)
  const from = join(tree.room, tree.rules)
  if (gate.ok)
    for (const name of await readdir(from))
      await copyFile(join(from, name), join(directory, 'rules', name))
  return gate
}

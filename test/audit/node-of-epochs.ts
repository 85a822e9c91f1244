/** A node's log over two or three epochs as they ought to be, copies of it, and their judgement. */
import { cpSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { verifyEpochs, type EpochsVerdict } from '#audit'
import { beginning, ending, first, second, third, writeEpoch } from './epoch-fixture.ts'
import { shared, temporary } from './fixture.ts'

export const at = (node: string, epoch: number): string => join(node, String(epoch))
export const verify = (
  directory: string,
  verifierKeys: readonly string[] = first.vkeys,
  held: readonly string[] = [],
): Promise<EpochsVerdict> => verifyEpochs({ directory, verifierKeys, held })

/** Two epochs as they ought to be; a third where asked. */
function build(node: string, epochs: 2 | 3 = 2): string {
  writeEpoch(at(node, 1), first, { closing: ending(second), signedEarly: true })
  const opening = beginning(first, at(node, 1))
  if (epochs === 2) writeEpoch(at(node, 2), second, { opening })
  else {
    writeEpoch(at(node, 2), second, { opening, closing: ending(third) })
    writeEpoch(at(node, 3), third, { opening: beginning(second, at(node, 2)) })
  }
  return node
}
export const pristine = build(shared(), 3)
export function copy(epochs: 2 | 3 = 3): string {
  const node = temporary()
  cpSync(pristine, node, { recursive: true })
  if (epochs === 2) {
    rmSync(at(node, 2), { recursive: true })
    rmSync(at(node, 3), { recursive: true })
    writeEpoch(at(node, 2), second, { opening: beginning(first, at(node, 1)) })
  }
  return node
}
export const checkpoint = (node: string, epoch: number): string =>
  readFileSync(join(at(node, epoch), 'checkpoint'), 'utf8')

/** The thread that a page of the decision log is masked in: what loops or eats memory here stops no decision. exporter.ts. */
import { parentPort, workerData } from 'node:worker_threads'
import { masking, PolicyError } from '#policy'
import {
  cursorText,
  leaving,
  type Cursor,
  type ExportPage,
  type ExportReply,
  type ExportTask,
} from './exporter.ts'
import { recordsFrom } from './journal.ts'

const { directory, begin, candidate, maxBytes } = workerData as ExportTask

async function page(): Promise<ExportPage> {
  const mask = masking(candidate)
  const items: string[] = []
  let bytes = 0
  let next: Cursor = begin
  for await (const { chain, record } of recordsFrom(directory, begin)) {
    const line = JSON.stringify(leaving(mask(record), chain))
    if (bytes > 0 && bytes + line.length > maxBytes) return { items, next, more: true }
    items.push(line)
    bytes += line.length
    next = { ...next, [chain]: { seq: record.seq + 1 } }
  }
  return { items, next, more: false }
}

async function reply(): Promise<ExportReply> {
  try {
    const { items, next, more } = await page()
    const end = JSON.stringify({ next: cursorText(next), more }).slice(1)
    return { ok: true, text: `{"items":[${items.join(',')}],${end}` }
  } catch (error) {
    const masked = error instanceof PolicyError
    return { ok: false, masked, detail: masked ? error.detail : String(error) }
  }
}

parentPort?.postMessage(await reply())

/** The thread that a page of the decision log is masked in: what loops or eats memory here stops no decision. exporter.ts. */
import { parentPort, workerData } from 'node:worker_threads'
import { masking, PolicyError } from '#policy'
import { leaving, type ExportPage, type ExportReply, type ExportTask } from './exporter.ts'
import { recordsSince } from './journal.ts'

const { directory, from, after, candidate, maxBytes } = workerData as ExportTask

async function page(): Promise<ExportPage> {
  const mask = masking(candidate)
  const items: string[] = []
  let bytes = 0
  let passed = after === null
  let last: { readonly at: number; readonly id: string } | null = null
  for await (const record of recordsSince(directory, from)) {
    const at = Date.parse(record.timestamp)
    // What stood at that instant and had been handed out; where it is not kept any more, all of that instant is.
    if (!passed && at === from) {
      passed = record.decision_id === after
      continue
    }
    passed = true
    const line = JSON.stringify(leaving(mask(record)))
    if (bytes > 0 && bytes + line.length > maxBytes) return { items, next: last }
    items.push(line)
    bytes += line.length
    last = { at, id: record.decision_id }
  }
  return { items, next: null }
}

async function reply(): Promise<ExportReply> {
  try {
    const { items, next } = await page()
    return { ok: true, text: `{"items":[${items.join(',')}],"next":${JSON.stringify(next)}}` }
  } catch (error) {
    const masked = error instanceof PolicyError
    return { ok: false, masked, detail: masked ? error.detail : String(error) }
  }
}

parentPort?.postMessage(await reply())

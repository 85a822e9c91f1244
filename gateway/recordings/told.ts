/** What the log says of a recording: each part by its hash, why it cannot go on, and the end over all parts. */
import {
  closeRecording,
  fileOf,
  rootOf,
  salvage,
  type AuditError,
  type AuditLog,
  type Part,
} from '#audit'

/** The session that a recording is of. */
export interface Names {
  readonly id: string
  readonly device: string
  readonly process: string
  readonly grant: string
}

/** A part that is on disk. Gives the index of its event. */
export async function appendPart(
  log: Pick<AuditLog, 'append'>,
  { id, device, process, grant }: Names,
  part: Part,
): Promise<number> {
  const { idx } = await log.append({
    code: 'recording.part',
    message: `part ${part.part} of the recording is on disk${part.torn ? ', without its end' : ''}`,
    status: 'success',
    session: id,
    device,
    process,
    grant,
    data: { ...part, torn: part.torn ? true : undefined, file: fileOf(part) },
  })
  return idx
}

/** Nothing more is recorded from here on. */
export async function tellFailure(
  log: Pick<AuditLog, 'append'>,
  { id, device, process, grant }: Names,
  error: AuditError,
): Promise<void> {
  await log.append({
    code: 'recording.fail',
    message: `the recording cannot go on: ${error.message}`,
    status: 'failure',
    reason: error.code,
    session: id,
    device,
    process,
    grant,
  })
}

/** Says to the log what is on disk, and that nothing will follow. Gives the root. */
export async function close(
  directory: string,
  log: Pick<AuditLog, 'append'>,
  names: Names,
  reason: string,
): Promise<string> {
  const { id, device, process, grant } = names
  const parts = await salvage(directory, id, (part) => appendPart(log, names, part))
  const root = rootOf(parts)
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0)
  const { idx } = await log.append({
    code: 'recording.end',
    message: `the recording has ${parts.length} parts`,
    status: parts.some(({ torn }) => torn) ? 'failure' : 'success',
    reason,
    session: id,
    device,
    process,
    grant,
    data: { parts: parts.length, root, bytes },
  })
  await closeRecording(directory, id, parts, { idx, reason })
  return root
}

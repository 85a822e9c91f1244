/** A mirror and its keys in a directory: what `sallyport audit mirror` runs. */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseCheckpoint } from '../checkpoint.ts'
import { cosignedBy } from '../cosign.ts'
import { realDisk } from '../disk.ts'
import { AuditError } from '../errors.ts'
import { formatWitnessKey, isKeyName, parseVkey, parseWitnessKey, witnessSigner } from '../note.ts'
import { conflictsIn } from './evidence.ts'
import { Mirror } from './mirror.ts'

/** Where a mirror's own keys are. */
const files = {
  ed25519: 'mirror-ed25519.key.pem',
  'ml-dsa-44': 'mirror-ml-dsa-44.key.pem',
} as const
const nameFile = 'mirror-name'

export interface MirrorKeys {
  /** What the mirror signs under. */
  readonly name: string
  readonly ed25519: KeyObject
  readonly mlDsa44: KeyObject
  /** Vkeys for the gateway's configuration and for auditors, one per key. */
  readonly vkeys: readonly string[]
}

/**
 * Makes the keys of a mirror called `name` (no blank, no plus; a name like `mirror.soc.example/press-hall`), durable
 * and readable by their owner alone. Errors: key.invalid where there are keys already or the name is none.
 */
export function makeMirrorKeys(directory: string, name: string): MirrorKeys {
  if (!isKeyName(name)) throw new AuditError('key.invalid', `${JSON.stringify(name)} is no name`)
  if (existsSync(join(directory, nameFile)))
    throw new AuditError('key.invalid', `${directory} holds the keys of a mirror already`)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  chmodSync(directory, 0o700)
  for (const kind of ['ed25519', 'ml-dsa-44'] as const) {
    const { privateKey } =
      kind === 'ed25519' ? generateKeyPairSync(kind) : generateKeyPairSync(kind)
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
    realDisk.replace(join(directory, files[kind]), Buffer.from(pem))
  }
  // Last: with the name there, both keys are.
  realDisk.replace(join(directory, nameFile), Buffer.from(`${name}\n`))
  return readMirrorKeys(directory)
}

/** The keys of the mirror in `directory`. Errors: key.invalid (none, damaged, or readable by others). */
export function readMirrorKeys(directory: string): MirrorKeys {
  if (!existsSync(join(directory, nameFile)))
    throw new AuditError('key.invalid', `${directory} holds no keys of a mirror`)
  const name = readFileSync(join(directory, nameFile), 'utf8').trim()
  const key = (file: string): KeyObject => {
    const path = join(directory, file)
    try {
      if ((statSync(path).mode & 0o077) !== 0) throw new Error('others may read it')
      return createPrivateKey(readFileSync(path))
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new AuditError('key.invalid', `the key ${path} cannot be used: ${why}`, { cause })
    }
  }
  const [ed25519, mlDsa44] = [key(files.ed25519), key(files['ml-dsa-44'])]
  const vkeys = [ed25519, mlDsa44].map((one) => formatWitnessKey(name, one))
  return { name, ed25519, mlDsa44, vkeys }
}

/**
 * Opens the mirror in `directory` for the log with these verifier keys. Errors: those of `Mirror.open`, and
 * key.invalid.
 */
export async function openMirror(
  directory: string,
  verifierKeys: readonly string[],
  now: () => number,
): Promise<Mirror> {
  const { name, ed25519, mlDsa44 } = readMirrorKeys(directory)
  const signers = [ed25519, mlDsa44].map((key) => witnessSigner(name, key))
  const verifiers = verifierKeys.map(parseVkey)
  return await Mirror.open({ directory, verifiers, signers, disk: realDisk, now })
}

/** What a mirror says of itself, from its files alone. */
export interface MirrorStatus {
  readonly name: string
  /** The log followed; null while nothing was. */
  readonly origin: string | null
  /** Events of the newest cosigned head. */
  readonly size: number
  /** When it was cosigned, epoch seconds. */
  readonly at: number | null
  /** Files of evidence. */
  readonly conflicts: readonly string[]
}

/** Reads it beside a running mirror. Errors: key.invalid where there is no mirror, note.invalid. */
export function mirrorStatus(directory: string): MirrorStatus {
  const { name, vkeys } = readMirrorKeys(directory)
  const path = join(directory, 'checkpoint')
  const head = existsSync(path) ? parseCheckpoint(readFileSync(path, 'utf8')) : null
  const [own] = head === null ? [] : cosignedBy(head, vkeys.map(parseWitnessKey))
  return {
    name,
    origin: head?.origin ?? null,
    size: own?.size ?? 0,
    at: own?.at ?? null,
    conflicts: conflictsIn(directory),
  }
}

/** A bundle without its module, for an OPA that has no WebAssembly engine: the same rules and data, unsigned. */
import { canonicalJson } from './canonical.ts'
import { parseJson } from './signature.ts'
import { readTar, writeTar } from './tar.ts'

/**
 * Takes an archive (tar). Gives one of Rego, data and a manifest that names no module. The signature
 * covers what is left out, so it is left out too. Errors: bundle.tar, bundle.json.
 */
export function asRego(archive: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const files = readTar(archive)
  const kept = [...files].filter(([name]) => name === 'data.json' || name.endsWith('.rego'))
  const manifest = parseJson(files.get('.manifest') ?? new Uint8Array(), '.manifest')
  const { wasm: _module, ...rest } = manifest as Record<string, unknown>
  const text = new TextEncoder().encode(canonicalJson(rest))
  return writeTar(new Map<string, Uint8Array>([...kept, ['.manifest', text]]))
}

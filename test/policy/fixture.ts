/** What the policy tests share: the built-in bundle, bundles with other data, and a hand-made module. */
import { createHash, generateKeyPairSync } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { BUILTIN_BUNDLE, loadBundle } from '#policy'
import type { Bundle } from '#policy'
import { canonicalJson } from '../../policy/canonical.ts'
import { ENTRYPOINTS } from '../../policy/points.ts'
import { signFiles } from '../../policy/signature.ts'
import { readTar, writeTar } from '../../policy/tar.ts'
import { findOpa, processEnvironment } from '../../policy/toolchain/opa.ts'

export const archive = new Uint8Array(readFileSync(BUILTIN_BUNDLE))
export const builtin = await loadBundle(archive, { trust: 'builtin', highWater: null })
export const opa = await findOpa(processEnvironment())

/** A key somebody signs policies with, and the trust in it. */
export function keyPair(namedCurve: string): { key: KeyObject; pem: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve })
  return { key: privateKey, pem: publicKey.export({ type: 'spki', format: 'pem' }).toString() }
}

/** The built-in bundle, some files changed (null: left out), signed. */
export function signedArchive(
  signer: { readonly key: KeyObject; readonly keyId: string; readonly seq: number },
  changes: Readonly<Record<string, Uint8Array | null>> = {},
): Uint8Array<ArrayBuffer> {
  const files = readTar(archive)
  for (const [name, bytes] of Object.entries(changes)) {
    if (bytes === null) files.delete(name)
    else files.set(name, bytes)
  }
  files.set('.signatures.json', signFiles(files, { ...signer, iat: 1795082400 }))
  return writeTar(files)
}

/** Changes that leave the vectors out: for modules that would not decide them. */
export function withoutVectors(): Record<string, null> {
  const names = [...readTar(archive).keys()].filter((name) => name.startsWith('vectors/'))
  return Object.fromEntries(names.map((name) => [name, null]))
}

/** The built-in bundle with another data document, without its vectors. */
export function withData(data: unknown): Bundle {
  const dataText = canonicalJson(data)
  const dataDigest = createHash('sha256').update(dataText).digest('hex')
  return { ...builtin, data, dataText, dataDigest, vectors: [] }
}

/** The built-in bundle with another module, without its vectors. */
export function withModule(wasm: Uint8Array<ArrayBuffer>): Bundle {
  return { ...builtin, wasm, vectors: [] }
}

function leb(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  do {
    const low = rest & 0x7f
    rest >>>= 7
    bytes.push(rest === 0 ? low : low | 0x80)
  } while (rest !== 0)
  return bytes
}

/** Signed: what i32.const takes. */
function sleb(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  for (;;) {
    const low = rest & 0x7f
    rest >>= 7
    const done = (rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)
    bytes.push(done ? low : low | 0x80)
    if (done) return bytes
  }
}

const bytesOf = (text: string): number[] => [...new TextEncoder().encode(text)]
const named = (text: string): number[] => [...leb(bytesOf(text).length), ...bytesOf(text)]
const section = (id: number, items: number[][]): number[] => {
  const body = [...leb(items.length), ...items.flat()]
  return [id, ...leb(body.length), ...body]
}

export interface Handmade {
  /** What `opa_eval` does: gives this result set (JSON text), or one of `trap`, `abort`, `builtin`, `grow`, `loop`. */
  readonly evaluation: string
  readonly abi?: number
  readonly minor?: number
  readonly entrypoints?: readonly string[]
  readonly builtins?: readonly string[]
  /** Whether the data document is refused by the module's parser. */
  readonly refusesData?: boolean
}

const I32 = 0x7f
const END = 0x0b

/** A WebAssembly module that speaks OPA's ABI and answers whatever the test wants. */
export function handmade(options: Handmade): Uint8Array<ArrayBuffer> {
  const { evaluation, abi = 1, minor = 3, entrypoints = ENTRYPOINTS, builtins = [] } = options
  const texts = [
    JSON.stringify(Object.fromEntries(builtins.map((name, at) => [name, at]))),
    JSON.stringify(Object.fromEntries(entrypoints.map((name, at) => [name, at]))),
    ['trap', 'abort', 'builtin', 'grow', 'loop'].includes(evaluation)
      ? 'aborted on purpose'
      : evaluation,
  ]
  const at: number[] = []
  let next = 1024
  for (const text of texts) {
    at.push(next)
    next += bytesOf(text).length + 1
  }
  const [builtinsAt = 0, entrypointsAt = 0, resultAt = 0] = at
  const constant = (value: number): number[] => [0x41, ...sleb(value)]
  const heap = 131_072
  const result = constant(resultAt)
  // Imports come first in the index space: opa_abort is 0, opa_builtin0 is 1.
  const evaluations: Record<string, number[]> = {
    trap: [0x00],
    abort: [...result, 0x10, 0, ...result],
    builtin: [...constant(0), ...constant(0), 0x10, 1],
    // (loop (br 0)) unreachable
    loop: [0x03, 0x40, 0x0c, 0, END, 0x00],
    // (loop (br_if 0 (i32.ne (memory.grow 64) -1))) unreachable
    grow: [0x03, 0x40, ...constant(64), 0x40, 0, ...constant(-1), 0x47, 0x0d, 0, END, 0x00],
  }
  const types = [
    [0x60, 1, I32, 0],
    [0x60, 2, I32, I32, 1, I32],
    [0x60, 0, 1, I32],
    [0x60, 1, I32, 1, I32],
    [0x60, 1, I32, 0],
    [0x60, 7, I32, I32, I32, I32, I32, I32, I32, 1, I32],
  ]
  const imports = [
    [...named('env'), ...named('memory'), 0x02, 0x00, 2],
    [...named('env'), ...named('opa_abort'), 0x00, 0],
    [...named('env'), ...named('opa_builtin0'), 0x00, 1],
  ]
  const functions: [string, number, number[]][] = [
    ['builtins', 2, constant(builtinsAt)],
    ['entrypoints', 2, constant(entrypointsAt)],
    ['opa_json_dump', 3, [0x20, 0]],
    ['opa_malloc', 3, constant(heap)],
    ['opa_json_parse', 1, parserOf(options.refusesData === true, constant)],
    ['opa_heap_ptr_get', 2, constant(heap)],
    ['opa_heap_ptr_set', 4, []],
    ['opa_eval', 5, evaluations[evaluation] ?? result],
  ]
  const globals = [abi, minor].map((value) => [I32, 0x00, ...constant(value), END])
  const exported = [
    ...functions.map(([name], index) => [...named(name), 0x00, index + 2]),
    [...named('opa_wasm_abi_version'), 0x03, 0],
    [...named('opa_wasm_abi_minor_version'), 0x03, 1],
  ]
  const code = functions.map(([, , body]) => {
    const whole = [0, ...body, END]
    return [...leb(whole.length), ...whole]
  })
  const data = texts.map((text, index) => {
    const content = [...bytesOf(text), 0]
    return [0x00, ...constant(at[index] ?? 0), END, ...leb(content.length), ...content]
  })
  return new Uint8Array([
    0x00,
    0x61,
    0x73,
    0x6d,
    0x01,
    0x00,
    0x00,
    0x00,
    ...section(1, types),
    ...section(2, imports),
    ...section(
      3,
      functions.map(([, type]) => [type]),
    ),
    ...section(6, globals),
    ...section(7, exported),
    ...section(10, code),
    ...section(11, data),
  ])
}

/** Parses `{}` (two bytes, the SDK's own first document) and, unless told otherwise, all else. */
function parserOf(refusesData: boolean, constant: (value: number) => number[]): number[] {
  // (select 4096 0 (i32.eq length 2)): address 0 is the SDK's word for "not JSON".
  return refusesData
    ? [...constant(4096), ...constant(0), 0x20, 1, ...constant(2), 0x46, 0x1b]
    : constant(4096)
}

/** The result set of one decision document, as `opa_eval` hands it out. */
export function resultSet(result: unknown): string {
  return JSON.stringify([{ result }])
}

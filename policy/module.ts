/**
 * One instance of a compiled policy, and the only file that touches opa-wasm. What the SDK throws
 * (strings, objects, traps) leaves here as PolicyError. An instance gets its data once, before its
 * first decision: after a failed setData it would answer wrongly and in silence.
 */
import * as sdk from '@open-policy-agent/opa-wasm'
import { findConstants, useConstants } from './constants.ts'
import type { Constants } from './constants.ts'
import { PolicyError } from './errors.ts'
import { Lift, UNREAD } from './lift.ts'
import { ROOM_BYTES } from './place.ts'
import type { Placed } from './place.ts'
import type { Ground } from './pen.ts'
import type { Reads } from './reads.ts'
import { inputSchema } from './schema.ts'
import { findShape } from './shape.ts'
import type { Shape } from './shape.ts'

const PAGE = 65_536
const MEMORY_PAGES = (64 * 1024 * 1024) / PAGE
const INITIAL_PAGES = 16
/** Room for what every input shares, and what one leaves for the next (kept.ts); they take a third. */
const SHAPE_BYTES = 256 * 1024

interface Sdk {
  loadPolicySync(
    module: WebAssembly.Module,
    memory: { readonly initial: number; readonly maximum: number },
  ): Loaded
}

// The synchronous loader is on the default export, which the package's types leave out.
const { default: opa } = sdk as unknown as { readonly default: Sdk }

interface Exports {
  readonly opa_eval: (
    reserved: number,
    entrypoint: number,
    data: number,
    input: number,
    inputLength: number,
    heap: number,
    format: number,
  ) => number
  readonly opa_json_dump: (address: number) => number
  readonly opa_json_parse: (address: number, length: number) => number
  readonly opa_malloc: (bytes: number) => number
  readonly opa_heap_ptr_get: () => number
  readonly opa_heap_ptr_set: (address: number) => void
  readonly opa_eval_ctx_new: () => number
  readonly opa_eval_ctx_set_input: (context: number, value: number) => void
  readonly opa_eval_ctx_set_data: (context: number, value: number) => void
  readonly opa_eval_ctx_set_entrypoint: (context: number, entrypoint: number) => void
  readonly opa_eval_ctx_get_result: (context: number) => number
  readonly eval: (context: number) => number
  readonly builtins: () => number
}

interface Loaded {
  readonly minorVersion: unknown
  readonly mem: WebAssembly.Memory
  readonly wasmInstance: { readonly exports: Exports }
  readonly dataAddr: number
  readonly baseHeapPtr: number
  readonly dataHeapPtr: number
  readonly entrypoints: unknown
  setData(data: ArrayBuffer): void
}

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function describe(thrown: unknown): string {
  if (typeof thrown === 'string') return thrown
  if (thrown instanceof Error) return thrown.message
  if (typeof thrown === 'object' && thrown !== null && 'message' in thrown)
    return String(thrown.message)
  return 'a thrown value that is not an error'
}

/** The text, ended by NUL, at an address. */
function readText(bytes: Uint8Array, address: number): string {
  const end = bytes.indexOf(0, address)
  if (address <= 0 || end < 0) throw new Error('no result')
  return decoder.decode(bytes.subarray(address, end))
}

function readJson(bytes: Uint8Array, address: number): unknown {
  return JSON.parse(readText(bytes, address))
}

/**
 * The memory of an instance that has its data and has decided nothing: a further instance is a copy of
 * it, so that data is parsed once. Everything the module keeps lies there, its heap pointer too.
 */
export interface Image {
  readonly memory: Uint8Array<ArrayBuffer>
  /** As many as the module believes it has: one that has fewer would run into the end of its memory. */
  readonly pages: number
  readonly dataAddr: number
  readonly dataHeapPtr: number
  /** How inputs are placed in it; undefined where they come as text. */
  readonly shape: Shape | undefined
}

/** A compiled module whose builtins and entry points have been looked at, and its data. */
export class CompiledPolicy {
  readonly module: WebAssembly.Module
  readonly image: Image

  private constructor(module: WebAssembly.Module, image: Image) {
    this.module = module
    this.image = image
  }

  /**
   * Compiles the module and loads the data into a first instance.
   * Takes: the module, the data document as JSON text, the entry points that must be there; the parts of
   * an input that its policy reads, where inputs are to be placed and not written.
   * Errors: module.invalid, module.abi, module.builtin (none is provided by this host),
   * module.entrypoint, module.data.
   */
  static async compile(
    wasm: Uint8Array<ArrayBuffer>,
    dataText: string,
    entrypoints: readonly string[],
    reads?: Reads,
  ): Promise<CompiledPolicy> {
    let module: WebAssembly.Module
    try {
      module = await WebAssembly.compile(wasm)
    } catch (error) {
      throw new PolicyError('module.invalid', describe(error), { cause: error })
    }
    const compiled = new CompiledPolicy(module, imageOf(module, dataText, reads))
    const first = compiled.instance()
    const missing = entrypoints.find((name) => !first.has(name))
    if (missing !== undefined) throw new PolicyError('module.entrypoint', `${missing} is missing`)
    return compiled
  }

  /** The same, with inputs as text: for a module whose shape has not stood the test. */
  withoutShape(): CompiledPolicy {
    return new CompiledPolicy(this.module, { ...this.image, shape: undefined })
  }

  /** What another thread compiled and looked at. */
  static from(module: WebAssembly.Module, image: Image): CompiledPolicy {
    return new CompiledPolicy(module, image)
  }

  /** The same module over another data document, JSON text. Errors: module.data. */
  withData(dataText: string): CompiledPolicy {
    return new CompiledPolicy(this.module, imageOf(this.module, dataText))
  }

  /** One instance over another data document and no further ones, in half the time. Errors: module.data. */
  instanceWith(dataText: string): PolicyInstance {
    const loaded = loadWith(this.module, dataText)
    return new PolicyInstance(loaded, loaded)
  }

  /** A fresh instance with the data loaded. Errors: module.invalid. */
  instance(): PolicyInstance {
    const loaded = load(this.module)
    const { memory, pages } = this.image
    try {
      const missing = pages - loaded.mem.buffer.byteLength / PAGE
      if (missing > 0) loaded.mem.grow(missing)
    } catch (error) {
      throw new PolicyError('module.data', describe(error), { cause: error })
    }
    new Uint8Array(loaded.mem.buffer).set(memory)
    return new PolicyInstance(loaded, this.image)
  }
}

function load(module: WebAssembly.Module): Loaded {
  const memory = { initial: INITIAL_PAGES, maximum: MEMORY_PAGES }
  try {
    return opa.loadPolicySync(module, memory)
  } catch (error) {
    const text = describe(error)
    const code = text.includes('ABI') ? 'module.abi' : 'module.invalid'
    throw new PolicyError(code, text, { cause: error })
  }
}

/** Loads the data into an instance of its own. Errors: module.abi, module.builtin, module.data. */
function loadWith(module: WebAssembly.Module, dataText: string): Loaded {
  const loaded = load(module)
  if (loaded.minorVersion !== 2 && loaded.minorVersion !== 3)
    throw new PolicyError('module.abi', `minor version ${String(loaded.minorVersion)}`)
  const wanted = builtinsOf(loaded)
  if (wanted.length > 0) throw new PolicyError('module.builtin', wanted.join(', '))
  try {
    loaded.setData(encoder.encode(dataText).buffer)
  } catch (error) {
    throw new PolicyError('module.data', describe(error), { cause: error })
  }
  return loaded
}

/** The module over the data, which uses its constants where it comes to the same: it is printed before and after. */
function loadSharing(
  module: WebAssembly.Module,
  dataText: string,
): { loaded: Loaded; constants: Constants } {
  const loaded = loadWith(module, dataText)
  const { mem, dataAddr, baseHeapPtr } = loaded
  try {
    const constants = findConstants(new Uint8Array(mem.buffer, 0, baseHeapPtr))
    if (constants.size === 0) return { loaded, constants }
    const before = printedAt(loaded, dataAddr)
    useConstants(mem.buffer, dataAddr, constants)
    if (printedAt(loaded, dataAddr) === before) return { loaded, constants }
  } catch {
    // As below: the data is laid out in a way that is not known here.
  }
  return { loaded: loadWith(module, dataText), constants: new Map() }
}

/** A value as JSON text. Printing may grow the memory, which takes every view made before it away. */
function dumpedAt({ mem, wasmInstance }: Loaded, value: number): string {
  const address = wasmInstance.exports.opa_json_dump(value)
  return readText(new Uint8Array(mem.buffer), address)
}

/** The same; what printing takes of the heap is given back. */
function printedAt(loaded: Loaded, value: number): string {
  const { exports } = loaded.wasmInstance
  const heap = exports.opa_heap_ptr_get()
  const text = dumpedAt(loaded, value)
  exports.opa_heap_ptr_set(heap)
  return text
}

function imageOf(module: WebAssembly.Module, dataText: string, reads?: Reads): Image {
  const { loaded, constants } =
    reads === undefined
      ? { loaded: loadWith(module, dataText), constants: new Map<string, number>() }
      : loadSharing(module, dataText)
  const { dataAddr } = loaded
  const shaped = reads === undefined ? undefined : shapeOf(loaded, reads, constants)
  const dataHeapPtr = shaped?.base ?? loaded.dataHeapPtr
  const memory = new Uint8Array(loaded.mem.buffer.slice(0, dataHeapPtr))
  const pages = loaded.mem.buffer.byteLength / PAGE
  return { memory, pages, dataAddr, dataHeapPtr, shape: shaped?.shape }
}

/** The value of a JSON text that is copied to an address; heap and value follow it. */
function parseAt({ mem, wasmInstance }: Loaded, text: Uint8Array, at: number): number {
  const { exports } = wasmInstance
  new Uint8Array(mem.buffer).set(text, at)
  exports.opa_heap_ptr_set(at + text.length)
  const value = exports.opa_json_parse(at, text.length)
  if (value === 0) throw new Error('a text of our own is not JSON')
  return value
}

/**
 * Finds the module's shape behind its data, and makes room for inputs behind that; the base is where
 * they begin. Errors: module.data.
 */
function shapeOf(
  loaded: Loaded,
  reads: Reads,
  constants: Constants,
): { shape: Shape; base: number } | undefined {
  const { exports } = loaded.wasmInstance
  const view = (): DataView => new DataView(loaded.mem.buffer)
  try {
    exports.opa_heap_ptr_set(loaded.dataHeapPtr)
    exports.opa_malloc(SHAPE_BYTES + ROOM_BYTES)
    exports.opa_heap_ptr_set(loaded.dataHeapPtr)
    const shape = findShape(
      {
        // Not by opa_malloc, which would hand out what a parse before has freed in the middle.
        parse: (text) => parseAt(loaded, encoder.encode(text), exports.opa_heap_ptr_get()),
        reserve(bytes) {
          const at = aligned(exports.opa_heap_ptr_get())
          exports.opa_heap_ptr_set(at + bytes)
          return at
        },
        word: (address) => view().getInt32(address, true),
        set: (address, words) =>
          words.forEach((word, at) => view().setInt32(address + 4 * at, word, true)),
        bytes: (from, to) => new Uint8Array(loaded.mem.buffer).subarray(from, to),
        constants,
      },
      inputSchema,
      reads,
    )
    const base = aligned(exports.opa_heap_ptr_get())
    if (shape === undefined || base > loaded.dataHeapPtr + SHAPE_BYTES) return undefined
    exports.opa_heap_ptr_set(base)
    return { shape, base }
  } catch (error) {
    throw new PolicyError('module.data', describe(error), { cause: error })
  }
}

function aligned(address: number): number {
  return Math.ceil(address / 4) * 4
}

function builtinsOf(loaded: Loaded): string[] {
  const { exports } = loaded.wasmInstance
  try {
    const names: unknown = JSON.parse(dumpedAt(loaded, exports.builtins()))
    return Object.keys(names as object).toSorted()
  } catch (error) {
    throw new PolicyError('module.invalid', describe(error), { cause: error })
  }
}

/** The value of a result set's only result; undefined where there is none. */
function onlyResult(results: unknown): unknown {
  if (!Array.isArray(results)) throw new Error('the result set is not a list')
  if (results.length === 0) return undefined
  const [first] = results as readonly unknown[]
  if (results.length > 1 || typeof first !== 'object' || first === null)
    throw new Error('the result set is not one result')
  return (first as { readonly result?: unknown }).result
}

/** One instance; after a PolicyError from `evaluate` or `evaluatePlaced` it must not be asked again. */
export class PolicyInstance {
  readonly #loaded: Loaded
  readonly #image: Pick<Image, 'dataAddr' | 'dataHeapPtr'>
  readonly #opaEval: Exports['opa_eval']
  readonly #entrypoints: ReadonlyMap<string, number>
  readonly #lift: Lift
  /** Where an input begins. */
  #base: number
  #view: Uint8Array<ArrayBuffer>

  constructor(loaded: Loaded, image: Pick<Image, 'dataAddr' | 'dataHeapPtr'>) {
    this.#loaded = loaded
    this.#image = image
    this.#opaEval = loaded.wasmInstance.exports.opa_eval
    this.#view = new Uint8Array(loaded.mem.buffer)
    this.#lift = new Lift(loaded.mem, image.dataHeapPtr)
    this.#base = image.dataHeapPtr
    const named = Object.entries(loaded.entrypoints as Record<string, number>)
    this.#entrypoints = new Map(named)
  }

  /** Whether the module has this entry point. */
  has(entrypoint: string): boolean {
    return this.#entrypoints.has(entrypoint)
  }

  /**
   * Evaluates one entry point.
   * Takes: its name and the input as JSON, text or UTF-8 (well-formed, bounded by the caller).
   * Gives: the value, or undefined where the rules leave it undefined. Errors: module.eval.
   */
  evaluate(entrypoint: string, input: string | Uint8Array): unknown {
    return this.#asked(entrypoint, (id) => onlyResult(this.#eval(id, input)))
  }

  /** Evaluates one entry point on an input that lies in this instance's memory; as `evaluate` else. */
  evaluatePlaced(entrypoint: string, input: Placed): unknown {
    return this.#asked(entrypoint, (id) => this.#evalPlaced(id, input))
  }

  /** What the module finds where an input was placed, printed and lifted. Errors: module.eval. */
  readPlaced({ value, end }: Placed): { readonly printed: unknown; readonly lifted: unknown } {
    try {
      this.#loaded.wasmInstance.exports.opa_heap_ptr_set(end)
      return { printed: this.#printed(value), lifted: this.#lift.value(value) }
    } catch (error) {
      throw new PolicyError('module.eval', describe(error), { cause: error })
    }
  }

  #printed(value: number): unknown {
    const address = this.#loaded.wasmInstance.exports.opa_json_dump(value)
    return readJson(this.#memory(), address)
  }

  /** Where inputs for this instance are placed. */
  get ground(): Ground {
    const loaded = this.#loaded
    const base = (taken: number): number => (this.#base += taken) - taken
    return {
      memory: loaded.mem,
      get base() {
        return base(0)
      },
      reserve: base,
      parse(text, at) {
        const value = parseAt(loaded, text, at)
        return { value, end: loaded.wasmInstance.exports.opa_heap_ptr_get() }
      },
    }
  }

  #asked(entrypoint: string, evaluate: (id: number) => unknown): unknown {
    const id = this.#entrypoints.get(entrypoint)
    if (id === undefined) throw new PolicyError('module.entrypoint', `${entrypoint} is missing`)
    try {
      return evaluate(id)
    } catch (error) {
      throw new PolicyError('module.eval', describe(error), { cause: error })
    }
  }

  /** The whole memory; a view is made anew only after the memory has grown. */
  #memory(): Uint8Array<ArrayBuffer> {
    const { buffer } = this.#loaded.mem
    if (this.#view.buffer !== buffer) this.#view = new Uint8Array(buffer)
    return this.#view
  }

  #eval(id: number, input: string | Uint8Array): unknown {
    const { mem } = this.#loaded
    const base = this.#base
    const bytes = typeof input === 'string' ? encoder.encode(input) : input
    const missing = base + bytes.length - mem.buffer.byteLength
    if (missing > 0) mem.grow(Math.ceil(missing / PAGE))
    this.#memory().set(bytes, base)
    // The heap begins anew after the input: what the last decision left there is overwritten.
    const heap = base + bytes.length
    const address = this.#opaEval(0, id, this.#image.dataAddr, base, bytes.length, heap, 0)
    return readJson(this.#memory(), address)
  }

  /** The heap begins anew after the input, as in `#eval`. */
  #evalPlaced(id: number, { value, end }: Placed): unknown {
    const { exports } = this.#loaded.wasmInstance
    exports.opa_heap_ptr_set(end)
    const context = exports.opa_eval_ctx_new()
    exports.opa_eval_ctx_set_input(context, value)
    exports.opa_eval_ctx_set_data(context, this.#image.dataAddr)
    exports.opa_eval_ctx_set_entrypoint(context, id)
    if (exports.eval(context) !== 0) throw new Error('the evaluation failed')
    const results = exports.opa_eval_ctx_get_result(context)
    const lifted = this.#lift.value(results)
    const read = lifted === UNREAD ? this.#printed(results) : lifted
    return onlyResult(read)
  }
}

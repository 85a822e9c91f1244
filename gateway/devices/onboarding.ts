/**
 * What a machine fetches to become a device, and the one line that fetches it. The line holds the hash of the
 * script, the script those of the agents: nothing is run that the gateway's own answer did not name.
 */
import { createHash } from 'node:crypto'
import { createReadStream, readFileSync } from 'node:fs'
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'

/** One file that is served below `/agent/`. */
export interface AgentFile {
  /** The name it is served by. */
  readonly name: string
  readonly path: string
  readonly sha256: string
  readonly bytes: number
}

const BUNDLE = 'sallyport-agent.cjs'
/** Goes with the bundle, as its licences ask. */
const LICENCES = 'THIRD-PARTY.txt'
const NODE_LICENCE = 'NODE-LICENSE.txt'
/** ELF e_machine, at octet 18, by the name that Node gives the architecture. */
const MACHINES: Readonly<Record<number, string>> = { 62: 'x64', 183: 'arm64' }
/** The Node that the bundle needs, of package.json's pin: docs/agent-build.md. */
const NODE = { major: 26, minor: 10 }
const SCRIPT = readFileSync(join(import.meta.dirname, 'install.sh'), 'utf8')

/** The folder that `npm run build:agent` filled; what is in it may change while the gateway runs. */
export class AgentBuild {
  readonly #folder: string
  /** By path: what a file was when it was hashed. */
  readonly #known = new Map<
    string,
    { readonly identity: string; readonly file: Promise<AgentFile> }
  >()

  constructor(folder: string) {
    this.#folder = folder
  }

  /** The files there are now; empty where nothing was built. A file is read again when it is another one. */
  async files(): Promise<readonly AgentFile[]> {
    let names: string[]
    try {
      names = await readdir(this.#folder)
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
      throw error
    }
    const found: AgentFile[] = []
    for (const name of names.sort()) {
      const path = join(this.#folder, name)
      const served = await servedAs(name, path)
      if (served !== undefined) found.push(await this.#hashed(served, path))
    }
    // Two executables for one architecture: the one with the plainer name, which sorts first.
    return found.filter(({ name }, at) => found.findIndex((one) => one.name === name) === at)
  }

  /** The script that installs an agent; undefined where there is none to install. */
  async script(): Promise<string | undefined> {
    const files = await this.files()
    if (!files.some(({ name }) => name.startsWith('sallyport-agent'))) return undefined
    const hashes = files.map(({ name, sha256 }) => ` ${name}=${sha256}`).join('')
    return SCRIPT.replace('@FILES@', `${hashes} `)
      .replace('@BUILT@', String(BUILT_S))
      .replace('@NODE_MAJOR@', String(NODE.major))
      .replace('@NODE_MINOR@', String(NODE.minor))
  }

  async #hashed(name: string, path: string): Promise<AgentFile> {
    const { dev, ino, size, mtimeMs, ctimeMs } = await stat(path)
    const identity = [dev, ino, size, mtimeMs, ctimeMs].join(' ')
    const known = this.#known.get(path)
    if (known?.identity === identity) return await known.file
    // Whoever asks meanwhile waits for the same reading.
    const file = hashOf(path).then((sha256) => ({ name, path, sha256, bytes: size }))
    file.catch(() => this.#known.delete(path))
    this.#known.set(path, { identity, file })
    return await file
  }
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

/** No clock of a working device is before this: 2026-11-01. */
const BUILT_S = 1_793_491_200

/** The name that a file of the folder is served by; undefined: it is not. */
async function servedAs(name: string, path: string): Promise<string | undefined> {
  if ([BUNDLE, LICENCES, NODE_LICENCE].includes(name)) return name
  if (!/^sallyport-agent(?:-(?:x64|arm64))?$/.test(name)) return undefined
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(20), 0, 20, 0)
    const isElf = bytesRead === 20 && buffer.readUInt32BE(0) === 0x7f454c46
    const machine = isElf ? MACHINES[buffer.readUInt16LE(18)] : undefined
    return machine === undefined ? undefined : `sallyport-agent-${machine}`
  } finally {
    await file.close()
  }
}

export interface Line {
  /** `https://host:port` that the device dials. */
  readonly origin: string
  readonly device: string
  readonly tenant: string
  readonly caSha256: string
  readonly token: string
  /** Of the script, as it is served now. */
  readonly scriptSha256: string
  /** Words of the keys whose updates the device is to take. */
  readonly updateKeys: readonly string[]
}

/** As `install` and `enroll` take them. */
export function pinning(updateKeys: readonly string[]): string[] {
  return updateKeys.map((word) => `--update-key ${word}`)
}

/**
 * One line for sh(1) on the device, as root or by sudo. The token is in no argument: printf is the shell's own.
 * More options of `sallyport-agent install` may follow it.
 */
export function installLine(line: Line): string {
  const steps = [
    'umask 077',
    'f=$(mktemp) || exit',
    'trap "rm -f $f" EXIT',
    'curl -fsSk --proto =https -o "$f" "$0/agent/install" || wget -q --no-check-certificate -O "$f" "$0/agent/install" || exit',
    `echo "${line.scriptSha256}  $f" | sha256sum -c - >/dev/null 2>&1 || { echo "$0/agent/install is not what this line was made for: make a new one (sallyport device token)" >&2; exit 1; }`,
    // sudo drops what it is not told to keep; as an argument the proxy's login would be shown to every user.
    's=; [ "$(id -u)" = 0 ] || s="sudo ${https_proxy:+--preserve-env=https_proxy}"',
    '$s sh "$f" --gateway "$0" "$@"',
  ]
  return [
    `printf %s ${line.token} | sh -c '${steps.join('; ')}'`,
    line.origin,
    `--device ${line.device}`,
    `--tenant ${line.tenant}`,
    `--ca-sha256 ${line.caSha256}`,
    ...pinning(line.updateKeys),
  ].join(' ')
}

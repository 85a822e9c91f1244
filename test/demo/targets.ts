/** The things behind the devices: each a process of its own, from an executable of its own. */
import { createHash } from 'node:crypto'
import { appendFileSync, constants, copyFileSync, createReadStream } from 'node:fs'
import { join } from 'node:path'
import { readLine, type Program } from './programs.ts'
import { root } from './sallyport.ts'
import type { Stage } from './stage.ts'

export interface Executable {
  readonly path: string
  readonly sha256: string
}

export interface Executables {
  readonly plc: Executable
  readonly hmi: Executable
  /** The same program with one byte more, under another name: to a device, a stranger. */
  readonly impostor: Executable
}

const START_MS = 20_000

/** Copies the runtime under the targets' names, so that each is its own file with its own digest. */
export async function makeExecutables(stage: Stage): Promise<Executables> {
  const directory = stage.folder('bin')
  const copy = async (name: string, ending: string): Promise<Executable> => {
    const path = join(directory, name)
    copyFileSync(process.execPath, path, constants.COPYFILE_FICLONE)
    // A loader reads an ELF by its headers: what follows the last section changes the digest alone.
    appendFileSync(path, ending)
    return { path, sha256: await digest(path) }
  }
  return {
    plc: await copy('plc-server', 'plc'),
    hmi: await copy('hmi-server', 'hmi'),
    impostor: await copy('plc-firmware-update', 'plc!'),
  }
}

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }))
    hash.update(chunk)
  return hash.digest('hex')
}

/** Starts a program that answers as the PLC; resolves when it listens. */
export async function startPlc(
  stage: Stage,
  executable: Executable,
  name: string,
): Promise<Program> {
  return startTarget(stage, executable, name, ['plc.ts', String(stage.ports.plc), name])
}

export async function startHmi(stage: Stage, executable: Executable): Promise<Program> {
  return startTarget(stage, executable, 'hmi', [
    'hmi.ts',
    String(stage.ports.hmi),
    String(stage.ports.plc),
  ])
}

async function startTarget(
  stage: Stage,
  executable: Executable,
  name: string,
  [script, ...rest]: readonly [string, ...string[]],
): Promise<Program> {
  const program = stage.programs.start({
    name,
    command: executable.path,
    args: [join(root, 'test/demo/targets', script), ...rest],
    cwd: stage.directory,
  })
  await program.line('listening', START_MS, (line) =>
    readLine(line)?.['msg'] === 'listening' ? true : undefined,
  )
  return program
}

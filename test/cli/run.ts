/** The command in this process: its exit code and what it printed. */
import { vi } from 'vitest'
import { main } from '../../cli/main.ts'

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs one command line with a SALLYPORT_HOME of its own. */
export async function run(home: string, ...args: string[]): Promise<Ran> {
  return listen(home, () => {}, ...args)
}

/** The same; `heard` is given each piece of stdout as it comes. */
export async function listen(
  home: string,
  heard: (text: string) => void,
  ...args: string[]
): Promise<Ran> {
  let out = ''
  let err = ''
  const stdout = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += String(text)
    heard(String(text))
    return true
  })
  const stderr = vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    err += String(text)
    return true
  })
  vi.stubEnv('SALLYPORT_HOME', home)
  try {
    const code = await main(['node', 'sallyport', ...args])
    return { code, out, err }
  } finally {
    stdout.mockRestore()
    stderr.mockRestore()
    vi.unstubAllEnvs()
  }
}

/** `sallyport connect` as a process of its own. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))

/** Sends `text` to a process of a device through a session of who is signed in at `home`; gives what comes back. */
export async function throughConnect(
  home: string,
  target: string,
  text: string,
  options: readonly string[] = [],
): Promise<string> {
  const args = ['--json', ...options, 'connect', target, '--listen', '127.0.0.1:0']
  const env = { ...process.env, SALLYPORT_HOME: home }
  const child = spawn(process.execPath, [bin, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (words: string) => (said += words))
  try {
    const first = createInterface({ input: child.stdout })
    const [line] = (await Promise.race([
      once(first, 'line'),
      once(child, 'close').then(() => {
        throw new Error(`connect ended: ${said}`)
      }),
    ])) as [string]
    const { port } = JSON.parse(line) as { port: number }
    const socket = connect({ port, host: '127.0.0.1' })
    socket.write(text)
    const [chunk] = (await Promise.race([
      once(socket, 'data'),
      once(socket, 'close').then(() => {
        throw new Error(`closed: ${said}`)
      }),
    ])) as [Buffer]
    socket.destroy()
    return chunk.toString()
  } finally {
    const over = child.exitCode === null ? once(child, 'close') : undefined
    child.kill('SIGTERM')
    await over
  }
}

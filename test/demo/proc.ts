/** Which processes belong to a program, and what they listen on: read from /proc, believed from nobody. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** A process and all that descend from it, as of now. A process that ends meanwhile is left out. */
export function processTree(pid: number): number[] {
  const found = [pid]
  for (const one of found) found.push(...children(one))
  return found.filter((one) => existsSync(`/proc/${one}`))
}

function children(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8')
        .split(' ')
        .filter(Boolean)
        .map(Number),
    )
  } catch {
    return []
  }
}

/** `tcp 127.0.0.1:15020`, `udp 0.0.0.0:5353`: every socket a peer could reach, of these processes. */
export function listening(pids: readonly number[]): string[] {
  const first = pids[0]
  if (first === undefined) return []
  const own = new Set(pids.flatMap(socketInodes))
  return tables.flatMap(({ name, state }) =>
    rows(first, name)
      .filter((row) => row.state === state && own.has(row.inode))
      .map((row) => `${name.replace('6', '')} ${row.local}`),
  )
}

/** TCP_LISTEN is 0A; an unconnected UDP socket, which anybody may send to, is 07 (TCP_CLOSE). */
const tables = [
  { name: 'tcp', state: '0A' },
  { name: 'tcp6', state: '0A' },
  { name: 'udp', state: '07' },
  { name: 'udp6', state: '07' },
] as const

function socketInodes(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      const target = link(`/proc/${pid}/fd/${fd}`)
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1]
      return inode === undefined ? [] : [inode]
    })
  } catch {
    return []
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}

function rows(pid: number, table: string): { local: string; state: string; inode: string }[] {
  const path = `/proc/${pid}/net/${table}`
  if (!existsSync(path)) return []
  return readFileSync(path, 'utf8')
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const cells = line.trim().split(/\s+/)
      const [, local, , state, , , , , , inode] = cells
      return local === undefined || state === undefined || inode === undefined
        ? []
        : [{ local: address(local), state, inode }]
    })
}

/** `0100007F:3AAC` is 127.0.0.1:15020: 32-bit words in the machine's order (proc_pid_net(5)). */
function address(text: string): string {
  const [hex = '', port = ''] = text.split(':')
  const octets = (hex.match(/.{8}/g) ?? []).flatMap((word) =>
    [...Buffer.from(word, 'hex')].reverse(),
  )
  const number = Number.parseInt(port, 16)
  if (octets.length === 4) return `${octets.join('.')}:${number}`
  const mapped =
    octets.slice(0, 10).every((octet) => octet === 0) && octets[10] === 255 && octets[11] === 255
  if (mapped) return `${octets.slice(12).join('.')}:${number}`
  const groups = Array.from({ length: 8 }, (_, n) =>
    (((octets[2 * n] ?? 0) << 8) | (octets[2 * n + 1] ?? 0)).toString(16),
  )
  return `[${groups.join(':')}]:${number}`
}

/** A pseudo-terminal: our side as a stream, the program's side as a descriptor. pty(7), ioctl_tty(2). */
import { closeSync, constants, fchmodSync, fchownSync, openSync } from 'node:fs'
import { ReadStream } from 'node:tty'
import { calls, lastError } from './calls.ts'

/** Rows and columns of characters, 1 to 1,000 each. */
export interface WindowSize {
  readonly rows: number
  readonly cols: number
}

export interface Pty {
  /** Reads what the program writes, writes what it reads; ends by `EIO` once the other side is closed. */
  readonly master: ReadStream
  /** The program's side; closed by `hangUp`. */
  readonly slave: number
  resize(size: WindowSize): void
  /** Lets go of the program's side, so that the stream ends when the program's own are closed. */
  hangUp(): void
}

const TIOCSWINSZ = 0x5414n
const NAME_BYTES = 64
/** open(2): a program that is started for somebody else does not have this terminal too. */
const O_CLOEXEC = 0o2000000

/** A new terminal that belongs to `uid`. Throws an Error that says which call failed. */
export function openPty(uid: number, size: WindowSize): Pty {
  const libc = calls()
  if (libc === undefined) throw new Error('this runtime cannot call libc')
  const fd = libc.posix_openpt(constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC)
  if (fd < 0) throw new Error(`posix_openpt: ${lastError(libc)}`)
  let slave: number
  try {
    slave = openSlave(libc, fd, uid)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  const resize = ({ rows, cols }: WindowSize) =>
    void libc.ioctl(fd, TIOCSWINSZ, new Uint8Array(Uint16Array.of(rows, cols, 0, 0).buffer))
  resize(size)
  const master = new ReadStream(fd)
  let open = true
  return {
    master,
    slave,
    resize: (now) => {
      if (!master.destroyed) resize(now)
    },
    hangUp: () => {
      if (open) closeSync(slave)
      open = false
    },
  }
}

function openSlave(libc: NonNullable<ReturnType<typeof calls>>, fd: number, uid: number): number {
  const name = new Uint8Array(NAME_BYTES)
  if (libc.grantpt(fd) !== 0 || libc.unlockpt(fd) !== 0)
    throw new Error(`unlockpt: ${lastError(libc)}`)
  if (libc.ptsname_r(fd, name, BigInt(NAME_BYTES)) !== 0) throw new Error('ptsname_r failed')
  const path = Buffer.from(name.subarray(0, name.indexOf(0))).toString('latin1')
  const slave = openSync(path, constants.O_RDWR | constants.O_NOCTTY)
  try {
    // The program opens /dev/tty and the name it is told; nobody else does. Once it is not ours any more
    // its mode would take CAP_FOWNER.
    fchmodSync(slave, 0o600)
    if (uid !== process.getuid?.()) fchownSync(slave, uid, process.getgid?.() ?? 0)
  } catch (error) {
    closeSync(slave)
    throw error
  }
  return slave
}

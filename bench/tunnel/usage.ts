/** What processes have used so far, as the kernel counts it: processor time of all their threads, memory. */
import { readdirSync, readFileSync } from 'node:fs'

/** Seconds on a processor since each process began, in the order of `pids`; 0 for one that has ended. */
export function cpuSeconds(pids: readonly number[]): number[] {
  return pids.map(secondsOf)
}

/** Ticks per second in /proc/PID/stat: USER_HZ is 100 wherever Node runs under Linux. */
const USER_HZ = 100

/** By the scheduler's nanoseconds where they are kept, else by ticks of 10 ms. */
function secondsOf(pid: number): number {
  try {
    let nanoseconds = 0
    for (const task of readdirSync(`/proc/${pid}/task`))
      nanoseconds += Number(read(`/proc/${pid}/task/${task}/schedstat`).split(' ')[0])
    if (nanoseconds > 0) return nanoseconds / 1e9
    const fields = read(`/proc/${pid}/stat`).split(') ')[1]?.split(' ') ?? []
    return (Number(fields[11]) + Number(fields[12])) / USER_HZ
  } catch {
    return 0
  }
}

/** Resident memory of a process in KiB; 0 for one that has ended. */
export function residentKiB(pid: number): number {
  try {
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0)
  } catch {
    return 0
  }
}

function read(path: string): string {
  return readFileSync(path, 'latin1')
}

/** The processes that a process has started and that still are, by their numbers here. proc_pid_children(5). */
import { readdirSync, readFileSync } from 'node:fs'

/** By the kernel's list; without CONFIG_PROC_CHILDREN there is none, and all processes are asked. */
export function childrenOf(parent: number): readonly string[] {
  try {
    return readFileSync(`/proc/${parent}/task/${parent}/children`, 'latin1')
      .split(' ')
      .filter(Boolean)
  } catch {
    return readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && parentOf(pid) === parent)
  }
}

function parentOf(pid: string): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return undefined
  }
}

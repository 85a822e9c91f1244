/** Slabs that nobody fills just now: one pool for all tunnels and sockets of the process. */
import { SlabPool } from '#mux'

export const pool = new SlabPool()

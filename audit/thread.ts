/** The writer's thread: one request in, one answer out, in order. */
import { realDisk } from './disk.ts'
import { serve } from './serve.ts'

serve(realDisk)

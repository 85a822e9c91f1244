#!/usr/bin/env node
/** The `sallyport` command: on the Node it is made for, from any directory. cli/main.ts does the rest. */
import { fileURLToPath } from 'node:url'
import { meetsFloor, run } from './guard.mjs'

if (meetsFloor(process.versions.node)) {
  // Who reads it has seen enough, as `| head` has. What is left is not done: a pipeline must not take that for done.
  process.stdout.on('error', (error) => {
    if (!('code' in error) || error.code !== 'EPIPE') throw error
    process.exit(1)
  })
  const { main } = await import('./main.ts')
  const code = await main(process.argv)
  if (typeof code === 'number') process.exitCode = code
} else run([fileURLToPath(import.meta.url), ...process.argv.slice(2)])

#!/usr/bin/env node
/** The `sallyport` command: on the Node it is made for, from any directory. cli/main.ts does the rest. */
import { fileURLToPath } from 'node:url'
import { meetsFloor, run } from './guard.mjs'

if (meetsFloor(process.versions.node)) {
  const { stopsUnread } = await import('./unread.ts')
  stopsUnread()
  const { main } = await import('./main.ts')
  const code = await main(process.argv)
  if (typeof code === 'number') process.exitCode = code
} else run([fileURLToPath(import.meta.url), ...process.argv.slice(2)])

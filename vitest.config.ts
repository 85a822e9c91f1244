import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Tests load as production does: Node's own loader, no transform.
    experimental: { viteModuleRunner: false },
    pool: 'forks',
    // Most files wait for processes that they started, so two of them share two cores well.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    // Every program that a test starts finds its sources compiled by the one before.
    env: {
      NODE_COMPILE_CACHE: fileURLToPath(new URL('node_modules/.cache/compiled', import.meta.url)),
    },
    // When to give up on what never comes; nothing is measured by it (test/support/patience.ts).
    expect: { poll: { timeout: 60_000 } },
    testTimeout: 120_000,
    hookTimeout: 180_000,
    reporters: ['default', './test/support/stuck.ts', './test/support/tally.ts'],
  },
})

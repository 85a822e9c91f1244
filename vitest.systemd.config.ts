import { defineConfig } from 'vitest/config'

/** Rows that need a machine under systemd, and make one: `npm run systemd`. They are no part of `npm test`. */
export default defineConfig({
  test: {
    include: ['test/systemd/*.run.ts'],
    experimental: { viteModuleRunner: false },
    pool: 'forks',
    testTimeout: 300_000,
    hookTimeout: 180_000,
  },
})

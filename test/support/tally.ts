/** The run's last line: `N passed, N failed`, with `, N skipped` and the skipped tests' names above it. */
import type { Reporter, TestModule } from 'vitest/node'

export default class Tally implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const count = { passed: 0, failed: errors.length, skipped: 0 }
    const skipped: string[] = []
    for (const module of modules) {
      let broken = module.errors().length > 0 ? 1 : 0
      for (const test of module.children.allTests()) {
        const state = test.result().state
        if (state === 'passed') count.passed++
        else if (state === 'failed') {
          count.failed++
          broken = 0
        } else {
          count.skipped++
          skipped.push(test.fullName)
        }
      }
      count.failed += broken
    }
    // Printed after the default reporter's own summary.
    process.on('exit', () => {
      for (const name of skipped) console.log(`skipped: ${name}`)
      const tail = count.skipped > 0 ? `, ${count.skipped} skipped` : ''
      console.log(`${count.passed} passed, ${count.failed} failed${tail}`)
    })
  }
}

/**
 * The run's last line: `N passed, N failed`, with `, N skipped` where any was, and the names of what
 * was skipped or never ran above it. Whatever kept a test from running counts as a failure: a file
 * that does not load, a hook that throws, a worker that dies, an error nobody caught.
 */
import type { Reporter, TestCase, TestModule, TestSuite } from 'vitest/node'

interface Count {
  passed: number
  failed: number
  readonly lines: string[]
  readonly skipped: string[]
}

export default class Tally implements Reporter {
  // A run that never ends has failed.
  #text = '0 passed, 1 failed'
  #failed = true

  onInit(): void {
    // Printed after the default reporter's own summary.
    process.on('exit', () => {
      console.log(this.#text)
      if (this.#failed) process.exitCode ||= 1
    })
  }

  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const count: Count = { passed: 0, failed: errors.length, lines: [], skipped: [] }
    for (const module of modules) {
      const before = count.failed
      for (const test of module.children.allTests()) place(test, module, count)
      const broken = [module, ...module.children.allSuites()].filter((at) => at.errors().length > 0)
      // A broken hook or file already shows as the tests it kept from running, if it had any.
      if (count.failed === before) count.failed += broken.length
      for (const at of broken) count.lines.push(`broken: ${name(at)}`)
    }
    if (modules.length === 0) {
      count.failed++
      count.lines.push('broken: no test file was found')
    }
    this.#failed = count.failed > 0
    const tail = count.skipped.length > 0 ? `, ${count.skipped.length} skipped` : ''
    const lines = [...count.lines, ...count.skipped.map((test) => `skipped: ${test}`)]
    this.#text = [...lines, `${count.passed} passed, ${count.failed} failed${tail}`].join('\n')
  }
}

function place(test: TestCase, module: TestModule, count: Count): void {
  const result = test.result()
  const title = `${module.relativeModuleId} > ${test.fullName}`
  if (result.state === 'passed') count.passed++
  else if (result.state === 'failed') count.failed++
  else if (result.state === 'skipped' && !kept(test)) {
    count.skipped.push(result.note === undefined ? title : `${title} (${result.note})`)
  } else {
    count.failed++
    count.lines.push(`never ran: ${title}`)
  }
}

/** Whether a broken hook above kept the test from running. */
function kept(test: TestCase): boolean {
  let at: TestModule | TestSuite = test.parent
  while (at.type === 'suite' && at.errors().length === 0) at = at.parent
  return at.errors().length > 0
}

function name(at: TestModule | TestSuite): string {
  return at.type === 'suite'
    ? `${at.module.relativeModuleId} > ${at.fullName}`
    : at.relativeModuleId
}

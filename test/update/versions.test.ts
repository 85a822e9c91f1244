/** One version, wherever it is said: an update is the agent that says it is newer. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { VERSION as agent } from '../../agent-tunnel/agent/version.ts'
import { VERSION as command } from '../../cli/version.ts'
import { VERSION as gateway } from '../../gateway/version.ts'

test('package, command, agent and gateway are of one version', () => {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version: string }
  expect([command, agent, gateway]).toEqual([version, version, version])
})

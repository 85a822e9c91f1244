/** The command `sallyport-agent`: what a device needs of `sallyport`, and nothing else; it also answers to `sallyport agent …`. */
import { addInstallCommands } from './commands/agent-install.ts'
import { addAgentCommands } from './commands/agent.ts'
import { program, run } from './program.ts'
import { becomeAgent } from './start.ts'
import { stopsUnread } from './unread.ts'

const [node = '', file = '', ...words] = process.argv
if (words[0] === 'agent') words.shift()
if (words.includes('run')) becomeAgent(words)
if (words[0] === 'become-program') void import('#agent').then((agent) => agent.becomeProgram())
else {
  stopsUnread()
  void run(program('sallyport-agent', [addAgentCommands, addInstallCommands]), [
    node,
    file,
    ...words,
  ]).then((code) => {
    if (code !== 0) process.exitCode = code
  })
}

/** `sallyport policy status|look|push|activate|rollback|impact|decisions|why|explain|who-can`: the policy of a running gateway. */
import type { Command } from 'commander'
import type * as asks from '../policy-asking.ts'
import type * as acts from '../policy-node.ts'
import { lazily } from './lazily.ts'

const acting = (name: keyof typeof acts) => lazily(() => import('../policy-node.ts'), name)
const asking = (name: keyof typeof asks) => lazily(() => import('../policy-asking.ts'), name)

export function registerPolicyNode(program: Command): void {
  const policy = program.commands.find((command) => command.name() === 'policy')
  if (policy === undefined) throw new Error('policy is registered first')
  policy
    .command('status')
    .description('what decides on the gateway, what waits, and how it fares')
    .action(acting('status'))
  policy
    .command('look')
    .description('have the gateway look at its source of bundles now, also at what it refused')
    .action(acting('look'))
  policy
    .command('impact')
    .description('what a signed bundle would cut and turn, without keeping it')
    .argument('<bundle>', 'the signed bundle')
    .option('--since <duration>', 'replay past decisions, as in 30d', '7d')
    .option('--permit <file>', 'the downgrade permit of an older bundle')
    .action(acting('impact'))
  policy
    .command('push')
    .description('upload a signed bundle, and see what it would cut and turn')
    .argument('<bundle>', 'the signed bundle')
    .option('--since <duration>', 'replay past decisions, as in 30d', '7d')
    .option('--permit <file>', 'the downgrade permit of an older bundle')
    .option('--activate', 'bring it into force at once, if what it cuts is agreed to')
    .option('--yes', 'with --activate: agree beforehand')
    .action(acting('push'))
  policy
    .command('activate')
    .description('bring the uploaded bundle into force; every live session is decided again')
    .argument('<digest>', 'its SHA-256, as push printed it')
    .action(acting('activate'))
  policy
    .command('try')
    .description(
      'ask the uploaded bundle beside the one in force; without a digest, how that fares',
    )
    .argument('[digest]', 'its SHA-256, as push printed it')
    .option('--shadow', 'it answers nobody: only differences are counted')
    .option('--percent <n>', 'it answers for this share of people and devices')
    .option('--label <name=value>', 'it answers for the devices with this label')
    .option('--end', 'end the trial')
    .action(acting('trial'))
  policy
    .command('rollback')
    .description('go back to the last bundle that proved good, once it is seen what that would cut')
    .option('--since <duration>', 'replay past decisions, as in 30d', '7d')
    .option('--yes', 'go back at once, without a look')
    .action(acting('rollback'))
  addAsking(policy)
}

function addAsking(policy: Command): void {
  policy
    .command('decisions')
    .description('the decision log, a line a decision, without what the policy masks')
    .option('--since <duration>', 'from then on, as in 1h (1d where nothing is said)')
    .option('--after <place>', 'what came after an earlier run, which said the place last')
    .option('--out <file>', 'where to write it, in place of stdout')
    .action(asking('decisions'))
  policy
    .command('why')
    .description('a decision in sentences: why, and what would change it')
    .argument('<decision>', 'its id, as a refusal or an event shows it')
    .action(asking('why'))
  policy
    .command('explain')
    .description('a logged decision rule by rule, with the expressions that failed')
    .argument('<decision>', 'its id, as a refusal or an event shows it')
    .action(asking('explain'))
  policy
    .command('who-can')
    .description('who could open a session to a process right now, and what stops the others')
    .argument('<device/process>', 'as in press-07/plc')
    .action(asking('whoCan'))
}

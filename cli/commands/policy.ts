/**
 * `sallyport policy new|fmt|check|test|build|keygen|sign|permit|eval`: what a security team does with its own rules on
 * its own machine. Nothing here asks a gateway; what does is in policy-node.ts.
 */
import type { Command } from 'commander'
import type * as folders from '../policy-folder.ts'
import type * as signings from '../policy-signing.ts'
import { lazily } from './lazily.ts'

const folder = (name: keyof typeof folders) => lazily(() => import('../policy-folder.ts'), name)
const signing = (name: keyof typeof signings) => lazily(() => import('../policy-signing.ts'), name)
const evaluating = lazily(() => import('../policy-eval.ts'), 'evaluate')

export function registerPolicy(program: Command): void {
  const policy = program
    .command('policy')
    .description('the rules that decide: write, prove, sign, roll out, ask why')
    .addHelpText(
      'after',
      `
From a rule to a gateway: new DIR, change it, fmt, check, test; keygen once, and its public half under policy.trust
of the gateway; sign; push shows what it would cut and turn, activate brings it into force, rollback takes it back.
why says of one decision what it stands on, who-can of one process who may.

A site's rules live in a folder of their own (policy new DIR). check, test and sign compile it with
opa, which is taken from PATH, from the cache, or installed with Go; gateways need none.`,
    )
  policy
    .command('new')
    .description('make a folder with the default rules, data and vectors, to change')
    .argument('<dir>', 'a directory that does not exist or is empty')
    .action(folder('make'))
  policy
    .command('fmt')
    .description('write the rules in the compiler’s format')
    .argument('<dir>', 'the policy folder')
    .action(folder('format'))
  policy
    .command('check')
    .alias('lint')
    .description('format, strict types, the rules of writing, one catalogue of codes')
    .argument('[dir]', 'the policy folder; without one, the product’s own policy')
    .action(folder('check'))
  policy
    .command('test')
    .description(
      'Rego tests, coverage, every vector in two engines and with each field wrong, speed',
    )
    .argument('[dir]', 'the policy folder; without one, the product’s own policy')
    .action(folder('test'))
  policy
    .command('build')
    .description('compile into an unsigned bundle')
    .argument('<dir>', 'the policy folder')
    .requiredOption('--out <file>', 'where to write it')
    .action(folder('build'))
  policy
    .command('keygen')
    .description('make a key that signs bundles (P-256)')
    .requiredOption(
      '--out <file>',
      'where the private key goes, 0600; the public one beside it as .pub',
    )
    .option('--passphrase-file <file>', 'what seals it; - reads stdin, without one you are asked')
    .option('--unsealed', 'leave it without a passphrase')
    .action(signing('keygen'))
  policy
    .command('sign')
    .description('pass every gate, compile, and sign the bundle')
    .argument('<dir>', 'the policy folder')
    .requiredOption('--key <file>', 'PEM of the signing key')
    .requiredOption('--seq <n>', 'sequence number, higher than that of every release before')
    .requiredOption('--out <file>', 'where to write the bundle')
    .option('--passphrase-file <file>', 'what opens the key; - reads stdin')
    .action(signing('sign'))
  policy
    .command('permit')
    .description('sign a downgrade permit: one older bundle may come back, once')
    .argument('<bundle>', 'the signed bundle to go back to')
    .requiredOption('--key <file>', 'PEM of the signing key')
    .requiredOption(
      '--over <seq>',
      'the highest sequence in force on the gateway, as status shows it',
    )
    .requiredOption('--for <duration>', 'how long it may be used, as in 1h')
    .requiredOption('--out <file>', 'where to write it')
    .option('--passphrase-file <file>', 'what opens the key; - reads stdin')
    .action(signing('permit'))
  policy
    .command('eval')
    .description('decide one input here, by a folder or a bundle')
    .argument('<what>', 'policy folder, or bundle file')
    .option('--point <name>', 'the decision point, as in session.open; a vector names its own')
    .requiredOption(
      '--input <file>',
      'JSON: an input, a vector, or what explain --json gave; what it leaves out is unknown (null)',
    )
    .option('--explain', 'rule by rule: what fired, what held, and why')
    .action(evaluating)
}

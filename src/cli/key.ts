import type { Command } from 'commander'
import { addKey, dropKey, generateKey, retireNamedKey, viewKeys } from '../operation/settings/keys.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { facts, table } from './output.js'

const defineGenerate = (command: Command, run: Run): void => {
  command.command('generate').description('make a key pair; new backups are encrypted to it')
    .option('--name <name>', 'what to call it', 'default')
    .option('--out <file>', 'where to put the private key (default: identities/NAME.txt in the state directory)')
    .action((options: { name: string; out?: string }) =>
      run(async (context) => {
        const { key, file } = await generateKey(await environmentOf(context), options)
        context.out.result({ ...key, file }, () => `${facts({ key: key.name, public_key: key.recipient, private_key: file })}
Copy the private key to a safe place off this machine now: without it no backup can be restored, and with it anybody can read them.`)
      }))
}

/** `backupd key generate | add | list | retire | remove`. */
export const define = (command: Command, run: Run): void => {
  defineGenerate(command, run)
  command.command('add').description('add a public key whose private key is kept elsewhere').argument('<recipient>', 'age1…, as age-keygen prints it')
    .option('--name <name>', 'what to call it (default: made from the key)')
    .action((recipient: string, { name }: { name?: string }) =>
      run(async (context) => {
        const key = await addKey(await environmentOf(context), recipient, name)
        context.out.result(key, () => `key ${key.name} added; new backups are encrypted to it too`)
      }))
  command.command('list').description('all keys, and which private keys are at hand').action(() =>
    run(async (context) => {
      const keys = await viewKeys(await environmentOf(context))
      const lines = keys.map((key) => ({
        ...key, fingerprint: key.fingerprint.slice(0, 16), state: key.retired_at === null ? 'active' : 'retired', private_key: key.at_hand ? 'at hand' : 'elsewhere',
      }))
      context.out.result(keys, () => table(['name', 'state', 'private_key', 'fingerprint', 'recipient'], lines, 'There are no keys: make one with "backupd key generate".'))
    }))
  command.command('retire').description('encrypt no new backups to it; old ones stay readable with it').argument('<name>', 'name of the key')
    .action((name: string) =>
      run(async (context) => {
        const key = await retireNamedKey(await environmentOf(context), name)
        context.out.result(key, () => `key ${name} retired; keep its private key as long as backups are encrypted to it`)
      }))
  command.command('remove').description('remove a key that no backup is encrypted to; the file with its private key stays').argument('<name>', 'name of the key')
    .action((name: string) =>
      run(async (context) => {
        const key = await dropKey(await environmentOf(context), name)
        context.out.result(key, () => `key ${name} removed; the file with its private key, if there is one here, stays`)
      }))
}

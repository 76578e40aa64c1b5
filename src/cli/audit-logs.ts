import type { KeyObject } from 'node:crypto'
import type { Command } from 'commander'
import { describePublic, findSigningKey, loadSigningKey, publicOf, readPublicKey } from '../audit/signing-key.js'
import { BackupdError } from '../errors.js'
import { archiveLogs, type Archiving } from '../operation/audit/archive.js'
import { signLogs, verifyLogs, type BadLog } from '../operation/audit/logs.js'
import { moment } from './arguments.js'
import type { Context, Run } from './context.js'
import { environmentOf } from './environment.js'
import { bytes, table } from './output.js'

interface Range {
  since?: Date
  until?: Date
}

const broken = (bad: readonly BadLog[], count: number): BackupdError =>
  new BackupdError('audit_logs.broken', `${count} ${count === 1 ? 'row' : 'rows'} of audit_logs ${count === 1 ? 'was' : 'were'} changed; the first: ${bad[0]?.message ?? ''}`, {
    kind: 'integrity', details: { bad: [...bad] }, hint: 'Compare with an archive or an earlier backup, and find out who can write to the table.',
  })

const sign = async (context: Context, range: Range): Promise<void> => {
  const result = await signLogs(await environmentOf(context), await loadSigningKey(context.config), range)
  context.out.result(result, () => `${result.signed} rows of audit_logs signed with the key ${result.fingerprint}`)
  if (result.bad_count > 0) throw broken(result.bad, result.bad_count)
}

const ownPublic = async ({ config }: Context): Promise<KeyObject> => {
  const own = await findSigningKey(config)
  if (own !== undefined) return publicOf(own)
  throw new BackupdError('audit.key', 'there is no signing key here to check signatures with', { kind: 'configuration', hint: 'Name the public key with --public-key FILE.' })
}

const verify = async (context: Context, { publicKey, ...range }: Range & { publicKey?: string }): Promise<void> => {
  const key = publicKey === undefined ? await ownPublic(context) : await readPublicKey(publicKey)
  const result = await verifyLogs(await environmentOf(context), key, range)
  context.out.result(result, () => `${result.signed} rows of audit_logs have a signature that holds, ${result.checksummed} a checksum that is right; ${result.unsigned} have neither`)
  if (!result.ok) throw broken(result.bad, result.bad_count)
}

const showKey = async (context: Context): Promise<void> => {
  const key = describePublic(await loadSigningKey(context.config))
  context.out.result({ public_key: key.pem, fingerprint: key.fingerprint }, () => key.pem.trimEnd())
}

const archiveText = ({ storage, rows, archives, deleted, dry_run: dryRun }: Archiving): string => {
  if (dryRun) return `${rows} rows of audit_logs are past their retention_until and would be archived to ${storage}${deleted ? ', then deleted' : ''}`
  if (archives.length === 0) return 'no row of audit_logs is past its retention_until'
  const list = archives.map((archive) => ({ ...archive, size: bytes(archive.size) }))
  return `${rows} rows of audit_logs archived to ${storage}${deleted ? ' and deleted' : ''}\n${table(['key', 'rows', 'size', 'sha256'], list, '')}`
}

const archive = async (context: Context, { storage, delete: remove = false, dryRun = false }: { storage: string; delete?: boolean; dryRun?: boolean }): Promise<void> => {
  const result = await archiveLogs(await environmentOf(context), { storage, remove, dryRun })
  context.out.result(result, () => archiveText(result))
}

const withRange = (command: Command): Command => command
  .option('--since <time>', 'only rows that were written at this time or later, or this long ago', moment)
  .option('--until <time>', 'only rows that were written before this time', moment)

/** `backupd audit archive` and `backupd audit logs sign | verify | key`: the shared table `audit_logs`. */
export const defineLogs = (command: Command, run: Run): void => {
  command.command('archive').description('bring rows of the shared table audit_logs that are past their retention_until into a storage')
    .requiredOption('--storage <name>', 'where to')
    .option('--delete', 'delete the rows once they are stored and read back; without it they are marked as archived')
    .option('--dry-run', 'say how many rows are due')
    .action((options: { storage: string; delete?: boolean; dryRun?: boolean }) => run((context) => archive(context, options)))
  const logs = command.command('logs').description('checksums and signatures in the shared table audit_logs')
  withRange(logs.command('sign').description('give every row without a signature a checksum (SHA-256) and a signature (Ed25519)'))
    .action((options: Range) => run((context) => sign(context, options)))
  withRange(logs.command('verify').description('compare rows with their checksums and signatures; exit code 5 when one was changed'))
    .option('--public-key <file>', 'the key to check with, in PEM (default: the public half of the one here)')
    .action((options: Range & { publicKey?: string }) => run((context) => verify(context, options)))
  logs.command('key').description('the public half of the signing key, which is made when there is none').action(() => run(showKey))
}

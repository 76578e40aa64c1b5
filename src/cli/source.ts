import type { Command } from 'commander'
import { text } from 'node:stream/consumers'
import { inspectSource, type SourceReport } from '../health/inspect-source.js'
import { jsonObject } from '../catalog/json.js'
import { BackupdError } from '../errors.js'
import { addSource, dropSource, viewSources, type SourceView } from '../operation/settings/sources.js'
import { findSource } from '../operation/sources.js'
import { describeConnection } from '../postgres/connection.js'
import { findTools } from '../postgres/tools.js'
import type { Run } from './context.js'
import { environmentOf } from './environment.js'
import { bytes, facts, table } from './output.js'
import { shellWord } from '../shell.js'

const addHelp = `
URL is postgres://user:password@host:5432/database?sslmode=require. The password is kept sealed in the catalog and never shown.
To keep it off the command line and out of the catalog, give a reference in place of the URL, or - to be asked on standard input:
  backupd source add shop --url '{"$env": "SHOP_URL"}'
  backupd source add shop --url '{"$file": "/run/credentials/shop-url"}'
  backupd source add shop --url - < url.txt`

const line = ({ connection, ...row }: SourceView) => ({ ...row, url: jsonObject(connection)['url'] })

const reportText = (name: string, where: string, report: SourceReport): string => {
  const notes = [...report.problems.map((problem) => `problem: ${problem}`), ...report.warnings.map((warning) => `warning: ${warning}`)]
  return [
    facts({
      source: name,
      url: where,
      server: `PostgreSQL ${report.server_version}${report.standby ? ', a standby' : ''}`,
      database: `${report.database}, ${bytes(report.size_bytes)}`,
      role: `${report.role}${report.superuser ? ', superuser' : ''}`,
      extensions: report.extensions.join(', '),
      pg_dump: report.pg_dump === undefined ? 'none that is new enough' : `${report.pg_dump.version} (${report.pg_dump.path})`,
    }),
    ...notes,
  ].join('\n')
}

const defineAdd = (command: Command, run: Run): void => {
  command.command('add').description('add a database to back up').argument('<name>', 'what to call it; schedules without a source use the one named default')
    .requiredOption('--url <url>', 'where it is, with user and password; see below')
    .option('--description <text>', 'for people')
    .addHelpText('after', addHelp)
    .action((name: string, options: { url: string; description?: string }) =>
      run(async (context) => {
        const url = options.url === '-' ? (await text(process.stdin)).trim() : options.url
        const { source, warnings } = await addSource(await environmentOf(context), { name, url, description: options.description })
        for (const warning of warnings) context.out.line(`warning: ${warning}`)
        context.out.result(source, () => `source ${name} added; "backupd source test ${shellWord(name)}" tries it`)
      }))
}

const defineTest = (command: Command, run: Run): void => {
  command.command('test').description('connect, and say what a backup of it would need').argument('<name>', 'name of the source')
    .action((name: string) =>
      run(async (context) => {
        const env = await environmentOf(context)
        const { connection } = await findSource(env, name)
        const report = await inspectSource(connection, await findTools({ pgBin: context.config.pgBin }), context.signal)
        const where = describeConnection(connection)
        context.out.result({ name, url: where, ...report }, () => reportText(name, where, report))
        if (report.problems.length === 0) return
        throw new BackupdError('source.unfit', `source ${name} cannot be backed up as it is: ${report.problems.join('; ')}`, { kind: 'configuration' })
      }))
}

/** `backupd source add | list | test | remove`. */
export const define = (command: Command, run: Run): void => {
  defineAdd(command, run)
  command.command('list').description('all sources').action(() =>
    run(async (context) => {
      const sources = await viewSources(await environmentOf(context))
      context.out.result(sources, () => table(['name', 'url', 'description'], sources.map(line), 'There are no sources: add one with "backupd source add NAME --url URL".'))
    }))
  defineTest(command, run)
  command.command('remove').description('remove a source that no schedule uses; its backups stay').argument('<name>', 'name of the source')
    .action((name: string) =>
      run(async (context) => {
        const removed = await dropSource(await environmentOf(context), name)
        context.out.result(removed, () => `source ${name} removed`)
      }))
}

import { throwIfAborted } from '../errors.js'
import { withSql } from '../postgres/sql.js'
import { findingOf, within, type Check, type Finding, type HealthContext, type SourceTarget } from './check.js'
import { inspectSource } from './inspect-source.js'

const patience = 20

const look = async (context: HealthContext, { name, connection }: SourceTarget): Promise<Finding[]> => {
  const subject = `source ${name}`
  try {
    const target = await connection()
    return await within(context, patience, async (signal): Promise<Finding[]> => {
      if (!context.thorough) {
        await withSql(target, { signal }, async (sql) => sql`SELECT 1`)
        return [{ subject, level: 'healthy', message: 'answers' }]
      }
      const report = await inspectSource(target, await context.tools(), signal)
      const where = `PostgreSQL ${report.server_version}, database ${report.database}`
      const dump = report.pg_dump === undefined ? '' : `, backed up with pg_dump ${report.pg_dump.version}`
      return [
        ...(report.problems.length === 0 ? [{ subject, level: 'healthy' as const, message: `${where}${dump}` }] : []),
        ...report.problems.map((message) => ({ subject, level: 'critical' as const, message: `${where}: ${message}` })),
        ...report.warnings.map((message) => ({ subject, level: 'warning' as const, message })),
      ]
    })
  } catch (error) {
    throwIfAborted(context.signal)
    return [findingOf(subject, error)]
  }
}

/** Every source can be reached; when thorough, also that it can be backed up whole. */
export const sourcesCheck: Check = {
  name: 'sources',
  needsCatalog: false,
  run: async (context) => {
    const targets = await context.sources().catch(async (error: unknown) => {
      // Why the catalog cannot be had is told by its own check.
      if ((await context.catalog().catch(() => undefined)) !== undefined) throw error
      return undefined
    })
    if (targets === undefined) return [{ subject: 'sources', level: 'warning', message: 'not checked, because the catalog cannot be had' }]
    if (targets.length === 0) return [{ subject: 'sources', level: 'healthy', message: 'there are none yet' }]
    return (await Promise.all(targets.map((target) => look(context, target)))).flat()
  },
}

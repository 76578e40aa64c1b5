import { throwIfAborted } from '../errors.js'
import { chooseTools } from '../postgres/tools.js'
import { withSql } from '../postgres/sql.js'
import { findingOf, within, type Check, type Finding, type HealthContext, type SourceTarget } from './check.js'
import { inspectSource } from './inspect-source.js'

const patience = 20

// A server that was upgraded may need newer programs than there are; that shows before the next backup does.
const lookBriefly = async (context: HealthContext, { connection }: SourceTarget, signal: AbortSignal): Promise<Omit<Finding, 'subject'>> => {
  const tools = await context.tools()
  const began = performance.now()
  const [row] = await withSql(await connection(), { signal }, async (sql) => sql<{ number: number }[]>`SELECT current_setting('server_version_num')::integer AS number`)
  const latency = Math.round(performance.now() - began)
  const major = Math.floor((row?.number ?? 0) / 10_000)
  const { version } = chooseTools(tools, major)
  return { level: 'healthy', message: `PostgreSQL ${major} answers, backed up with pg_dump ${version}`, metrics: { latency_ms: latency, server_major: major, pg_dump: version } }
}

const findings = async (context: HealthContext, source: SourceTarget): Promise<Finding[]> => {
  const { name, connection } = source
  const subject = `source ${name}`
  try {
    return await within(context, patience, async (signal): Promise<Finding[]> => {
      if (!context.thorough) return [{ subject, ...(await lookBriefly(context, source, signal)) }]
      const report = await inspectSource(await connection(), await context.tools(), signal)
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

const look = async (context: HealthContext, source: SourceTarget): Promise<Finding[]> =>
  (await findings(context, source)).map((finding) => ({ ...finding, target: { type: 'source', id: source.id } }))

/** Every source can be reached, and there is a pg_dump for it; when thorough, also that it can be backed up whole. */
export const sourcesCheck: Check = {
  name: 'sources',
  type: 'system',
  scope: 'shared',
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

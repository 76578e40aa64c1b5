import type { Check } from './check.js'

/** Client programs of PostgreSQL are there. Whether they are new enough is told for each source. */
export const toolsCheck: Check = {
  name: 'tools',
  type: 'system',
  scope: 'machine',
  needsCatalog: false,
  run: async ({ tools, config }) => {
    const found = await tools()
    if (found.length > 0) return found.map(({ version, dir }) => ({ subject: 'tools', level: 'healthy', message: `PostgreSQL client ${version} in ${dir}` }))
    const where = config.pgBin === undefined ? '' : `${config.pgBin}, `
    return [{
      subject: 'tools', level: 'critical', message: `no pg_dump, pg_dumpall, pg_restore and psql in ${where}/usr/lib/postgresql/*/bin or PATH`,
      advice: 'Install postgresql-client, or name the folder of an installation in BACKUPD_PG_BIN.',
    }]
  },
}

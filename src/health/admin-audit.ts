import { seriousAuditLogs } from '../catalog/observations.js'
import type { Check } from './check.js'

/** The audit trail of the application that shares the catalog has nothing serious of the last 24 h. */
export const adminAuditCheck: Check = {
  name: 'admin_audit',
  type: 'system',
  scope: 'shared',
  needsCatalog: true,
  run: async ({ catalog }) => {
    const { high, critical } = await seriousAuditLogs((await catalog()).db)
    const subject = 'administration'
    const metrics = { high_24h: high, critical_24h: critical }
    if (high + critical === 0) return [{ subject, level: 'healthy', message: 'nothing serious in its audit trail in 24 h', metrics }]
    const kinds = [...(critical > 0 ? [`${critical} critical`] : []), ...(high > 0 ? [`${high} high`] : [])].join(' and ')
    // It says nothing about backups, so that it is no more than a warning.
    return [{ subject, level: 'warning', message: `entries in its audit trail in 24 h: ${kinds}`, advice: 'Look at them in the application\'s administration.', metrics }]
  },
}

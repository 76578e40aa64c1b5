import { liveWorkers } from '../catalog/workers.js'
import type { Check } from './check.js'

/** Somebody keeps the schedules. */
export const daemonCheck: Check = {
  name: 'daemon',
  type: 'system',
  scope: 'shared',
  needsCatalog: true,
  run: async ({ catalog, schedules }) => {
    const { db } = await catalog()
    const daemons = await liveWorkers(db, 'daemon')
    if (daemons.length > 0) return [{ subject: 'daemon', level: 'healthy', message: `running on ${daemons.map(({ host, pid }) => `${host} (pid ${pid})`).join(', ')}` }]
    const waiting = (await schedules()).some(({ is_active }) => is_active)
    if (!waiting) return [{ subject: 'daemon', level: 'healthy', message: 'none runs, and no schedule needs one' }]
    return [{ subject: 'daemon', level: 'warning', message: 'none runs, so schedules are not kept', advice: 'Start it with "backupd daemon", or "systemctl start backupd".' }]
  },
}

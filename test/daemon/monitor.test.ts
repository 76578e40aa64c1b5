import t from 'tap'
import { createMonitor } from '../../src/daemon/monitor.js'
import { createPulse } from '../../src/daemon/pulse.js'
import { createTally } from '../../src/daemon/tally.js'
import { silentLog } from '../../src/log.js'

t.test('a catalog that answers with errors is told apart from one that does not answer, and no table is named', (t) => {
  const pulse = createPulse(silentLog())
  const monitor = createMonitor({ pulse, tally: createTally(), concurrency: 2, patience: 30_000 })
  const catalog = () => monitor.health().find(({ name }) => name === 'catalog')
  pulse.answered()
  t.match(catalog(), { status: 'healthy' })
  pulse.failed(Object.assign(new Error('permission denied for table backup_executions'), { code: '42501' }))
  t.match(catalog(), { status: 'warning', message: /nothing but errors for \d+ s; the log says which$/ })
  t.notMatch(JSON.stringify(monitor.health()), 'backup_executions')
  t.notOk(monitor.ready())
  pulse.answered()
  pulse.failed(Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }))
  t.match(catalog(), { status: 'warning', message: /has not answered for \d+ s$/ })
  t.end()
})

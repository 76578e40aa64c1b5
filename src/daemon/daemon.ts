import { hostname } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import type { Catalog } from '../catalog/connect.js'
import { catalogReason, isUnreachable } from '../catalog/failures.js'
import { listenForWork } from '../catalog/notifications.js'
import { trimNotifications } from '../catalog/outbox.js'
import { sweepWorkers } from '../catalog/workers.js'
import type { Config } from '../config.js'
import { BackupdError, messageOf } from '../errors.js'
import { startHttp } from '../http/server.js'
import type { Log } from '../log.js'
import { archiveLogs } from '../operation/audit/archive.js'
import { keepCatalogSchedules } from '../operation/settings/catalog-schedules.js'
import { newWorkerId, type Environment } from '../operation/environment.js'
import { version } from '../version.js'
import { createAlerts } from './alerts.js'
import { lookAtEverything } from './checks.js'
import { createLoop } from './loop.js'
import { createMonitor } from './monitor.js'
import { openWhenReachable } from './open.js'
import { defaultOptions, type DaemonOptions } from './options.js'
import { createPeriodic } from './periodic.js'
import { createPresence } from './presence.js'
import { createPulse, type Pulse } from './pulse.js'
import { createReaper } from './reap.js'
import { createRestores, type Restores } from './restores.js'
import { queueRetry, STOPPED } from './retry.js'
import { scrub } from './scrub.js'
import { serviceManager, type ServiceManager } from './systemd.js'
import { createTally, type Tally } from './tally.js'
import { createUpkeep } from './upkeep.js'
import { createWork, type Work } from './work.js'

/** What was sent, or given up, is kept for so many days. */
const KEEP_ALERTS = 30

export interface DaemonStart {
  config: Config
  log: Log
  /** Asks the daemon to drain and end. */
  signal: AbortSignal
  /** Asks it not to wait for running work. */
  urgent: AbortSignal
  options?: Partial<DaemonOptions>
  /** Told the address of the HTTP server. */
  onListening?: (address: string) => void
}

/** After the start, until health is looked at for the first time. Milliseconds. */
const FIRST_CHECK = 5_000

interface Surroundings extends Omit<DaemonStart, 'options'> {
  options: DaemonOptions
  pulse: Pulse
  tally: Tally
  monitor: ReturnType<typeof createMonitor>
  periodic: ReturnType<typeof createPeriodic>
  manager: ServiceManager
  address: string
}

/** Resolves when one of the signals aborts, or after `timeout` milliseconds. */
const aborted = (timeout: number | undefined, signals: AbortSignal[], end: AbortSignal): Promise<void> =>
  wait(timeout ?? 2 ** 31 - 1, undefined, { signal: AbortSignal.any([...signals, end]) }).catch(() => undefined)

/** Lets running work finish for the drain's time, then ends it; what was cut is queued again. */
const drain = async ({ config, log, urgent, options }: Surroundings, work: Work, restores: Restores): Promise<void> => {
  await work.stopTaking()
  restores.stopTaking()
  if (work.running.size > 0) log.info({ running: work.running.size, seconds: config.drainTimeout / 1000 }, 'waiting for running work to finish')
  const over = new AbortController()
  const idle = Promise.all([work.idle(), restores.idle()]).finally(() => over.abort())
  await aborted(config.drainTimeout, [urgent], over.signal)
  if (over.signal.aborted) return
  log.warn({ running: work.running.size }, 'running work is ended')
  work.abort(new BackupdError(STOPPED, 'the daemon was stopped while this run was going on; it is tried again', {
    retryable: true, hint: 'BACKUPD_DRAIN_TIMEOUT says how long running work may take when the daemon is stopped.',
  }))
  restores.abort(new BackupdError(STOPPED, 'the daemon was stopped while this restore was going on', { hint: 'Start it again; a new database that was half restored is gone.' }))
  await Promise.race([idle, aborted(options.cleanUp, [], over.signal)])
  if (work.running.size > 0) log.error({ executions: [...work.running.keys()] }, 'running work did not end; its leases run out, and another daemon sees to it')
}

/** The daemon with its catalog, until it is asked to end. */
const serve = async (around: Surroundings, catalog: Catalog): Promise<void> => {
  const { config, log, signal, options, pulse, tally, monitor, periodic, manager, address } = around
  const env: Environment = {
    config, catalog, log, workerId: newWorkerId(), signal,
    actor: { username: 'backupd', host: hostname() },
    ended: async (tx, execution) => (await queueRetry(env, tx, execution, options.retryDelay)) !== undefined,
  }
  const work = createWork(env, options.perform, { ended: (run, error) => tally.ended(run, error) })
  const restores = createRestores(env)
  const reaper = createReaper(env, {
    ...options, own: (kind, id) => (kind === 'execution' ? work.running.has(id) : restores.own(id)), onLost: (execution) => tally.lost(execution),
  })
  const presence = createPresence(env, 'daemon')
  const details = (): unknown => ({ running: work.running.size, concurrency: config.concurrency, http: address })
  const loop = createLoop({ env, options, work, restores, reaper, presence, pulse, details })
  const alerts = createAlerts(env)
  monitor.watch(work)
  log.info({ worker: env.workerId, catalog: catalog.description, embedded: catalog.embedded }, 'the catalog is open')

  const refresh = async (): Promise<void> => {
    await monitor.refresh(catalog.db)
    const waiting = monitor.figures?.queue.pending ?? 0
    await manager.notify(`STATUS=${work.running.size} running, ${waiting} waiting`)
  }
  const whenReachable = (task: () => Promise<unknown>) => async (): Promise<void> => {
    if (pulse.catalog !== 'reachable') return
    try {
      await task()
    } catch (error) {
      if (signal.aborted) return
      if (!isUnreachable(error)) throw error
      pulse.failed(error)
    }
  }
  periodic.every(options.tick, 'look', () => {
    pulse.ticked()
    loop.tick()
  })
  periodic.every(options.refresh, 'figures', whenReachable(refresh))
  const check = async (): Promise<void> => monitor.setChecks(await lookAtEverything(env, catalog, options.check))
  periodic.every(options.check, 'health', whenReachable(check))
  periodic.every(options.check, 'scrub', whenReachable(() => scrub(env, work)))
  periodic.every(60, 'leftovers', whenReachable(() => reaper.sweepLeftovers()))
  const { auditArchiveStorage: archiveTo } = config
  const archive = async (): Promise<void> => {
    if (archiveTo !== undefined) await archiveLogs(env, { storage: archiveTo, remove: config.auditArchiveDelete })
  }
  periodic.every(options.archive, 'audit archive', whenReachable(archive))
  periodic.every(600, 'workers', whenReachable(() => sweepWorkers(catalog.db)))
  const keepSchedules = whenReachable(() => keepCatalogSchedules(env))
  periodic.every(60, 'catalog schedules', keepSchedules)
  const upkeep = createUpkeep(env)
  periodic.every(options.upkeep, 'upkeep', whenReachable(() => upkeep.run()))
  // Word of a new alert may be missed, and what a receiver did not take is tried again.
  periodic.every(options.alerts, 'alerts', whenReachable(async () => alerts.wake()))
  periodic.every(3600, 'old alerts', whenReachable(() => trimNotifications(catalog.db, KEEP_ALERTS)))
  // The driver listens again after every lost connection; closing the catalog ends it.
  listenForWork(catalog.sql, (notification) => (notification.kind === 'alert' ? alerts.wake() : loop.heard(notification)), () => loop.look())
    .catch((error: unknown) => log.warn({ error: catalogReason(error) }, 'not listening for notifications yet'))
  loop.look()
  await monitor.refresh(catalog.db).catch((error: unknown) => pulse.failed(error))
  await manager.notify('READY=1', 'STATUS=running')
  log.info({ concurrency: config.concurrency }, 'ready')
  void archive().catch((error: unknown) => log.error({ task: 'audit archive', error: catalogReason(error) }, 'periodic work failed'))
  void keepSchedules().catch((error: unknown) => log.error({ task: 'catalog schedules', error: catalogReason(error) }, 'periodic work failed'))
  // Not at once: the first round would compete with the work that has waited for a daemon.
  void wait(FIRST_CHECK, undefined, { signal }).then(whenReachable(check)).catch((error: unknown) => log.debug({ error: catalogReason(error) }, 'health could not be looked at yet'))

  await aborted(undefined, [signal], new AbortController().signal)
  log.info({ reason: messageOf(signal.reason) }, 'stopping')
  pulse.draining = true
  await manager.notify('STOPPING=1', 'STATUS=waiting for running work')
  await loop.stop()
  loop.look()
  const kept = upkeep.stop()
  await drain(around, work, restores)
  periodic.stop()
  await Promise.race([kept, wait(options.cleanUp, undefined, { ref: false })])
  await alerts.stop()
  await presence.leave()
}

/**
 * Runs the daemon until `signal`: schedules, works, serves, and drains. Resolves when all is put away. Fails with `http.listen`, or
 * with what waiting for the catalog does not cure (exit code 4).
 */
export const runDaemon = async ({ options: given, ...start }: DaemonStart): Promise<void> => {
  const { config, log, signal } = start
  const options = { ...defaultOptions, ...given }
  const pulse = createPulse(log)
  const tally = createTally()
  const monitor = createMonitor({ pulse, tally, concurrency: config.concurrency, patience: Math.max(30_000, options.tick * 4_000) })
  const manager = serviceManager(process.env, log)
  const periodic = createPeriodic(log)
  log.info({ version, pid: process.pid, node: process.version }, 'backupd starts')
  try {
    const http = await startHttp(config.listen, monitor, log)
    log.info({ address: http.address }, 'listening')
    start.onListening?.(http.address)
    try {
      periodic.every(options.tick, 'tick', () => pulse.ticked())
      manager.keepAlive(() => monitor.live())
      const catalog = await openWhenReachable(config, log, signal, (error) => {
        pulse.failed(error)
        // Started is what it is: it waits by itself, and systemd has no reason to start it anew.
        void manager.notify('READY=1', 'STATUS=waiting for the catalog')
      })
      if (catalog !== undefined) {
        await serve({ ...start, options, pulse, tally, monitor, periodic, manager, address: http.address }, catalog).finally(() =>
          catalog.close().catch((error: unknown) => log.warn({ error: messageOf(error) }, 'closing the catalog failed')))
      }
    } finally {
      await http.close()
    }
    log.info('stopped')
  } finally {
    periodic.stop()
    manager.stop()
  }
}

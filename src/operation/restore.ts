import { randomBytes } from 'node:crypto'
import { BackupdError, messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { withWatchdog } from '../pipeline/watchdog.js'
import { describeConnection, withDatabase, type Connection } from '../postgres/connection.js'
import { countTables, createDatabase, dropDatabase, onServer, replaceDatabase } from '../postgres/database.js'
import { restoreGlobals } from '../postgres/globals.js'
import { restoreArchive, type RestoreReport } from '../postgres/restore.js'
import type { ByteSource } from '../storage/storage.js'
import { openPart, readStored } from './readback.js'
import type { RestorePlan } from './restore-plan.js'
import type { Tracker } from './progress.js'

/** One table of the comparison after a restore. */
export interface TableComparison {
  schema: string
  name: string
  /** In the dump's snapshot; null when it was not counted. */
  expected: number | null
  /** Null: the table is not there. */
  found: number | null
}

export interface Validation {
  passed: boolean
  tables: number
  rows: number
  differences: TableComparison[]
}

export interface RestoreRun {
  plan: RestorePlan
  tracker: Tracker
  log: Log
  signal: AbortSignal
  /** Milliseconds without a byte before the run is ended. */
  stallTimeout: number
  /** Told of each stage before it begins. */
  enter(stage: 'downloading' | 'restoring' | 'validating'): Promise<void>
}

const drain = async (source: ByteSource): Promise<void> => {
  for await (const _ of source);
}

/** Reads every part once and compares its digest, before a database that is in use is touched. */
const checkDigests = async ({ plan, tracker, signal }: RestoreRun): Promise<void> => {
  for (const part of plan.manifest.parts) {
    await drain(readStored(plan.storage, part, signal, (checked) => tracker.moved({ checked })))
    tracker.finishedPart()
  }
}

const plainPart = ({ plan, tracker, signal }: RestoreRun, part: RestorePlan['database']): ByteSource =>
  openPart(readStored(plan.storage, part, signal, (checked) => tracker.moved({ checked })), part, { ...plan, signal })

async function* counted(source: ByteSource, tracker: Tracker): ByteSource {
  for await (const block of source) {
    tracker.moved({ plain: block.length })
    yield block
  }
}

const applyGlobals = async (run: RestoreRun): Promise<void> => {
  const { plan, tracker, signal } = run
  if (!plan.options.globals) return
  if (plan.globals === undefined) {
    tracker.warn('the backup holds no roles, so none were created')
    return
  }
  const stored = plainPart(run, plan.globals)
  const report = await onServer(plan.target, signal, async (sql) => restoreGlobals(withDatabase(plan.target, (await sql`SELECT current_database() AS name`)[0]?.['name'] as string), stored, signal))
  for (const { what, reason } of report.failed) tracker.warn(`${what}: ${reason}`)
}

/** pg_restore from the stream into `target`; digest, decryption and length are checked on the way, and their failure is the restore's. Gives the tables whose rows were chosen. */
const fill = async (run: RestoreRun, target: Connection, inPlace: boolean): Promise<RestoreReport['filled']> => {
  const { plan, tracker, stallTimeout } = run
  const { options, tools, contents } = plan
  const stalled = new AbortController()
  const signal = AbortSignal.any([run.signal, stalled.signal])
  const source = withWatchdog(counted(plainPart(run, plan.database), tracker), { timeout: stallTimeout, signal, onStall: (error) => stalled.abort(error) })
  const { warnings, filled } = await restoreArchive({
    connection: target, tools, source, signal,
    jobs: options.jobs,
    tables: options.tables,
    prerequisites: !inPlace,
    inPlace,
    schemaOnly: options.schemaOnly,
    noOwner: options.noOwner,
    noPrivileges: options.noOwner,
    noTablespaces: options.noOwner,
    danglingKeys: contents.dangling_keys,
  })
  for (const warning of warnings) tracker.warn(warning)
  tracker.finishedPart()
  return filled
}

/** Compares the tables and their rows with what the index says that the dump's snapshot held. */
const validate = async ({ plan, signal }: RestoreRun, target: Connection, filled: RestoreReport['filled']): Promise<Validation> => {
  const { contents, options } = plan
  const rowsThere = !options.schemaOnly && contents.tables.some(({ part }) => part !== null)
  const counts = await countTables(target, contents.tables, signal)
  const found = new Map(counts.map(({ schema, name, rows }) => [JSON.stringify([schema, name]), rows]))
  const compared = contents.tables.map(({ schema, name, rows }): TableComparison => ({ schema, name, expected: rows, found: found.get(JSON.stringify([schema, name])) ?? null }))
  const chosen = filled === undefined ? undefined : new Set(filled.map(({ schema, name }) => JSON.stringify([schema, name])))
  // Of others that are there, because what was chosen needs them or in a database that is older, nothing was promised.
  const looked = chosen === undefined ? compared : compared.filter((table) => (rowsThere ? chosen.has(JSON.stringify([table.schema, table.name])) : table.found !== null))
  const differs = ({ expected, found: rows }: TableComparison): boolean => rows === null || (rowsThere && expected !== null && rows !== expected)
  const differences = looked.filter(differs)
  return { passed: differences.length === 0, tables: looked.length, rows: looked.reduce((sum, table) => sum + (table.found ?? 0), 0), differences }
}

const mismatch = ({ differences }: Validation, database: string): BackupdError =>
  new BackupdError('restore.validation', `what was restored into ${database} is not what was backed up: ${differences.slice(0, 5).map(({ schema, name, expected, found }) => `${schema}.${name} has ${found ?? 'no table'}${found === null ? '' : ' rows'} of ${expected ?? 'unknown'}`).join('; ')}`, {
    kind: 'integrity', details: { differences: differences.slice(0, 100) },
  })

const nameBeside = (): string => `backupd_restore_${randomBytes(4).toString('hex')}`

/** Restores into a database that did not exist, and drops it again when anything fails. */
const intoNew = async (run: RestoreRun, target: Connection): Promise<Validation> => {
  const { plan, tracker, log } = run
  const { name: _name, icu_rules: icuRules, ...shape } = plan.contents.database
  const owner = plan.options.noOwner ? target.user : shape.owner
  const { warnings } = await createDatabase(target, { ...shape, owner, icuRules }, run.signal)
  for (const warning of warnings) tracker.warn(warning)
  try {
    await run.enter('restoring')
    const filled = await fill(run, target, false)
    await run.enter('validating')
    const validation = await validate(run, target, filled)
    if (!validation.passed) throw mismatch(validation, target.database)
    return validation
  } catch (error) {
    await dropDatabase(target, AbortSignal.timeout(60_000)).catch((secondary: unknown) => {
      log.error({ database: target.database, error: messageOf(secondary) }, 'the half-restored database could not be dropped')
      tracker.warn(`the half-restored database ${describeConnection(target)} could not be dropped; drop it by hand`)
    })
    throw error
  }
}

/** Restores beside the existing database and changes the two over in one transaction: until then the old one stays as it is. */
const inPlaceOf = async (run: RestoreRun): Promise<Validation> => {
  const { target } = run.plan
  const beside = withDatabase(target, nameBeside())
  const validation = await intoNew(run, beside)
  try {
    const remaining = await replaceDatabase(target, beside.database, run.signal)
    if (remaining !== undefined) run.tracker.warn(`the old database could not be dropped and is now called ${remaining}`)
  } catch (error) {
    await dropDatabase(beside, AbortSignal.timeout(60_000)).catch((secondary: unknown) => run.log.error({ database: beside.database, error: messageOf(secondary) }, 'the restored copy could not be dropped'))
    throw error
  }
  return validation
}

/** Single tables into the existing database: dropped and made again in one transaction of pg_restore, so that a failure changes nothing. */
const tablesInto = async (run: RestoreRun): Promise<Validation> => {
  await run.enter('restoring')
  const filled = await fill(run, run.plan.target, true)
  await run.enter('validating')
  return validate(run, run.plan.target, filled)
}

/** Carries out a plan. When it rejects, a new database is gone again and an existing one is as it was. */
export const restore = async (run: RestoreRun): Promise<Validation> => {
  const { plan } = run
  await run.enter('downloading')
  if (plan.exists) await checkDigests(run)
  await applyGlobals(run)
  if (!plan.exists) return intoNew(run, plan.target)
  return plan.options.tables.length > 0 ? tablesInto(run) : inPlaceOf(run)
}

import { describeDatabase } from '../postgres/describe.js'
import { dumpDatabase, dumpGlobals } from '../postgres/dump.js'
import { selectionArguments, selectRelations, type Selection } from '../postgres/selection.js'
import { holdSnapshot, type Snapshot, type TableRows } from '../postgres/snapshot.js'
import { withSql } from '../postgres/sql.js'
import { chooseTools, findTools } from '../postgres/tools.js'
import { messageOf } from '../errors.js'
import type { Contents } from '../repository/contents.js'
import type { ByteSource } from '../storage/storage.js'
import type { BackupPlan } from './plan.js'
import type { Tracker } from './progress.js'

/** A source opened for one backup: every stream of it shows the database at one moment. */
export interface SourceReading {
  serverVersion: string
  dumpVersion: string
  globals(): ByteSource
  database(): ByteSource
  /** What is in the backup; call after the database was read. `part` is the key of the part that holds the rows, null for none. */
  contents(backupId: string, part: string | null): Promise<Contents>
  close(): Promise<void>
}

const rowsByTable = (counts: readonly TableRows[]): Map<string, number> => new Map(counts.map(({ schema, name, rows }) => [JSON.stringify([schema, name]), rows]))

/** Counts beside the dump; what prevents it is a warning, because the dump itself does not need it. */
const startCounting = (snapshot: Snapshot, selection: Selection, tracker: Tracker, signal: AbortSignal): Promise<TableRows[]> => {
  const counting = snapshot.id === undefined ? Promise.resolve([]) : snapshot.countRows(selection.relations, signal)
  return counting.catch((error: unknown) => {
    if (!signal.aborted) tracker.warn(`rows were not counted: ${messageOf(error)}`)
    return []
  })
}

/**
 * Opens the plan's source: chooses the tools for the server's version, takes one snapshot for everything, and applies the patterns.
 * Fails with `source.*`, `tools.missing` or `dump.nothing_included` before anything is read.
 */
export const readSource = async (plan: BackupPlan, tracker: Tracker, signal: AbortSignal): Promise<SourceReading> => {
  const { connection } = plan
  const described = await withSql(connection, { signal }, describeDatabase)
  const tools = chooseTools(await findTools({ pgBin: plan.pgBin }), described.serverMajor)
  let selection: Selection | undefined
  const snapshot = await holdSnapshot(connection, {
    signal,
    lock: (relations) => {
      selection = selectRelations(relations, plan.include, plan.exclude)
      return selection.relations
    },
  })
  const chosen = selection ?? selectRelations(snapshot.relations, plan.include, plan.exclude)
  for (const warning of chosen.warnings) tracker.warn(warning)
  if (snapshot.notShared !== undefined) tracker.warn(`the snapshot is not shared, so rows are not counted: ${snapshot.notShared}`)
  if (plan.backupType !== 'database_only' && !described.superuser) {
    tracker.warn('roles are backed up without their passwords, which only a superuser may read')
  }

  const schemaOnly = plan.backupType === 'configuration'
  const stopCounting = new AbortController()
  let counting: Promise<TableRows[]> = Promise.resolve([])
  return {
    serverVersion: described.serverVersion,
    dumpVersion: tools.version,
    globals: () => dumpGlobals({ connection, tools, withPasswords: described.superuser, signal }),
    database: () => {
      if (!schemaOnly) counting = startCounting(snapshot, chosen, tracker, AbortSignal.any([signal, stopCounting.signal]))
      return dumpDatabase({
        connection, tools, signal,
        snapshot: snapshot.id,
        ...(schemaOnly ? { sections: ['pre-data', 'post-data'] as const } : {}),
        tables: selectionArguments(chosen),
        onWarning: (warning) => tracker.warn(`pg_dump: ${warning}`),
      })
    },
    contents: async (backupId, part) => {
      const rows = rowsByTable(await counting)
      const tables = chosen.relations.filter(({ hasData }) => hasData)
      return {
        format_version: 1,
        backup_id: backupId,
        tables: tables.map(({ schema, name }) => ({ schema, name, part, rows: rows.get(JSON.stringify([schema, name])) ?? null })),
        large_objects: schemaOnly || chosen.onlyIncluded ? 0 : snapshot.largeObjects,
        database: {
          name: described.database, owner: described.owner, encoding: described.encoding, collate: described.collate, ctype: described.ctype,
          provider: described.provider, locale: described.locale, icu_rules: described.icuRules,
        },
        roles: described.roles,
        extensions: described.extensions,
        tablespaces: described.tablespaces,
        dangling_keys: chosen.danglingKeys,
      }
    },
    close: async () => {
      stopCounting.abort()
      await counting
      await snapshot.release()
    },
  }
}

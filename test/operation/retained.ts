import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { openCatalog, type Catalog } from '../../src/catalog/connect.js'
import { readConfig } from '../../src/config.js'
import { silentLog } from '../../src/log.js'
import { newWorkerId, type Environment } from '../../src/operation/environment.js'
import { Secret } from '../../src/secret.js'
import type { TestServer } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'
import { tempDir, type Teardown } from '../support/temp.js'

/** A catalog with one storage `disk` and a schedule `shop` that keeps its backups for a day, and objects that look like backups. */
export interface Shelf {
  env: Environment
  catalog: Catalog
  dir: string
  sql(text: string): Promise<Record<string, unknown>[]>
  /** Puts an execution on record, with objects where it is a backup; gives its folder. */
  put(id: number, days: number, more?: Record<string, string>): Promise<string>
  ids(): Promise<number[]>
  objects(): string[]
}

let number = 0

/** Adds a storage and gives its folder. */
export const addDisk = async ({ sql }: Pick<Shelf, 'sql'>, t: Teardown, name: string): Promise<string> => {
  const dir = join(tempDir(t, name), 'backups')
  await sql(`INSERT INTO storage_backend_configs (name, backend_type, config_data) VALUES ('${name}', 'local', '{"base_path": "${dir}"}')`)
  return dir
}

export const shelf = async (t: Teardown, server: TestServer): Promise<Shelf> => {
  const name = `shelf_${process.pid}_${(number += 1)}`
  const statement = async (database: string, text: string): Promise<Record<string, unknown>[]> => {
    const sql = connectTo(server.url(database))
    try {
      return [...(await sql.unsafe(text))] as Record<string, unknown>[]
    } finally {
      await sql.end()
    }
  }
  await statement('postgres', `CREATE DATABASE ${name}`)
  const signal = new AbortController().signal
  const log = silentLog()
  const stateDir = tempDir(t, 'state')
  const catalog = await openCatalog({ databaseUrl: new Secret(server.url(name)), stateDir, log, signal })
  t.teardown(() => catalog.close())
  const sql = (text: string): Promise<Record<string, unknown>[]> => statement(name, text)
  const dir = await addDisk({ sql }, t, 'disk')
  await sql(`INSERT INTO backup_schedules (name, cron_expression, backup_type, storage_backend_id, retention_days) VALUES ('shop', '@daily', 'full', 1, 1)`)
  return {
    catalog, dir, sql,
    env: { config: readConfig({ BACKUPD_STATE_DIR: stateDir, BACKUPD_STORAGE_RETRY: '0' }), catalog, log, signal, workerId: newWorkerId(), actor: { username: 'tester', host: 'here' } },
    put: async (id, days, more = {}) => {
      const folder = `20260101T0000${String(id).padStart(2, '0')}Z-shop-aaaaaa`
      const parts = [{ key: `${folder}/database.dump`, stored_size: 100 }, { key: `${folder}/deep/index.json`, stored_size: 10 }]
      const columns: Record<string, string> = {
        id: String(id), backup_id: `'${folder}'`, schedule_id: '1', storage_backend_id: '1', backup_type: `'full'`, triggered_by: `'schedule'`, status: `'completed'`, verification_status: `'verified'`,
        attempt: '1', started_at: `now() - interval '${days} days'`, included_components: `'[]'`, compressed_size_bytes: '110', storage_location: `'${pathToFileURL(join(dir, folder)).href}'`,
        execution_metadata: `'${JSON.stringify({ manifest: JSON.stringify({ parts }) })}'`, ...more,
      }
      await sql(`INSERT INTO backup_executions (${Object.keys(columns).join(', ')}) VALUES (${Object.values(columns).join(', ')})`)
      if (columns['status'] === `'completed'` || columns['status'] === `'corrupted'`) {
        mkdirSync(join(dir, folder, 'deep'), { recursive: true })
        for (const { key, stored_size } of parts) writeFileSync(join(dir, key), 'x'.repeat(stored_size))
        writeFileSync(join(dir, folder, 'manifest.json'), '{}')
      }
      return folder
    },
    ids: async () => (await sql('SELECT id FROM backup_executions ORDER BY id')).map(({ id }) => Number(id)),
    objects: () => (existsSync(dir) ? readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((key) => statSync(join(dir, key)).isFile()).sort() : []),
  }
}

/** Makes a folder that nothing can be removed from, also not by root; the returned function undoes it. */
export const lockFolder = (t: Teardown, path: string): (() => void) => {
  const root = process.getuid?.() === 0
  const set = (locked: boolean): void => (root ? void execFileSync('chattr', [locked ? '+i' : '-i', path]) : chmodSync(path, locked ? 0o500 : 0o700))
  set(true)
  let locked = true
  const unlock = (): void => {
    if (locked) set(false)
    locked = false
  }
  t.teardown(unlock)
  return unlock
}

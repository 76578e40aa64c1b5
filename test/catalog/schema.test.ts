import { execFileSync } from 'node:child_process'
import { cpSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { is, SQL, PgDialect, PgTable, getTableConfig } from '../../src/catalog/drizzle.js'
import t from 'tap'
import * as schema from '../../src/catalog/schema.js'
import { migrate } from '../../src/catalog/migrate.js'
import { silentLog } from '../../src/log.js'
import { tempDir } from '../support/temp.js'
import { databaseOn, never, serverFor } from './server.js'
import { shapeOf } from './shape.js'

const tables = Object.values(schema).filter((value) => is(value, PgTable)).map((table) => getTableConfig(table))
const dialect = new PgDialect()
const text = (value: unknown): string => (is(value, SQL) ? dialect.sqlToQuery(value).sql : typeof value === 'string' ? `'${value}'` : String(value))
const types: Record<string, string> = { serial: 'integer', bigint: 'bigint' }
const typeOf = (type: string): string => types[type] ?? type.replace(/^varchar/, 'character varying')

t.test('the migrated database is what the schema says', async (t) => {
  const server = await serverFor(t)
  const { url, sql } = await databaseOn(t, server)
  await migrate(url, { signal: never, log: silentLog() })
  const shape = await shapeOf(sql)
  const found = shape.columns.filter((line) => !line.startsWith('backupd_migrations.'))
    // How the server prints a default: with its type.
    .map((line) => line.replace(/'::(character varying|jsonb)$/, "'").replace(/nextval\('.*$/, '(next)'))
  const columns = tables.flatMap(({ name, columns }) => columns.map((column) => {
    const type = column.getSQLType()
    const value = type === 'serial' ? '(next)' : column.default === undefined ? '-' : text(column.default)
    return `${name}.${column.name}: ${typeOf(type)} ${column.notNull ? 'NOT NULL' : 'NULL'} ${value}`
  }))
  t.strictSame(found, columns.sort())

  const keys = tables.flatMap(({ name, foreignKeys }) => foreignKeys.map((key) => {
    const { columns: [column], foreignTable } = key.reference()
    const action = key.onDelete === undefined || key.onDelete === 'no action' ? '' : ` ON DELETE ${key.onDelete.toUpperCase()}`
    return `${name}: FOREIGN KEY (${column?.name}) REFERENCES ${getTableConfig(foreignTable).name}(id)${action}`
  }))
  t.strictSame(shape.foreignKeys, keys.sort())

  // Conditions are printed by the server in its own words, so of a partial index only its having one is compared.
  const indexes = tables.flatMap(({ name, indexes, uniqueConstraints }) => [
    ...indexes.map(({ config }) => {
      const of = config.columns.map((column) => (column as { name: string }).name).join(', ')
      return `CREATE ${config.unique ? 'UNIQUE ' : ''}INDEX ${config.name} ON public.${name} USING btree (${of})${config.where === undefined ? '' : ' WHERE'}`
    }),
    ...uniqueConstraints.map((unique) => `CREATE UNIQUE INDEX ${unique.name} ON public.${name} USING btree (${unique.columns.map((one) => one.name).join(', ')})`),
    `CREATE UNIQUE INDEX ${name}_pkey ON public.${name} USING btree (id)`,
  ])
  const made = shape.indexes.filter((line) => !line.includes('backupd_migrations')).map((line) => line.replace(/ WHERE .*/, ' WHERE'))
  t.strictSame(made, indexes.sort())
})

t.test('drizzle-kit finds the folder whole and nothing left to generate', (t) => {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const kit = join(root, 'node_modules/drizzle-kit/bin.cjs')
  t.match(execFileSync(process.execPath, [kit, 'check'], { cwd: root, encoding: 'utf8' }), /Everything's fine/)
  // In a copy, because it would write the next migration.
  const copy = tempDir(t)
  cpSync(join(root, 'drizzle'), join(copy, 'drizzle'), { recursive: true })
  const config = join(copy, 'drizzle.config.json')
  const relative = `${'../'.repeat(root.split('/').filter((part) => part !== '').length)}${copy.slice(1)}/drizzle`
  writeFileSync(config, JSON.stringify({ dialect: 'postgresql', schema: join(root, 'src/catalog/schema.ts'), out: `./${relative}` }))
  const before = readdirSync(join(copy, 'drizzle'))
  t.match(execFileSync(process.execPath, [kit, 'generate', '--config', config], { cwd: root, encoding: 'utf8' }), /No schema changes/)
  t.strictSame(readdirSync(join(copy, 'drizzle')), before)
  t.end()
})

t.test('the SQL is what the snapshots give', (t) => {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const written = (...numbers: string[]): string => execFileSync(process.execPath, [
    join(root, 'scripts/adoption-sql.mjs'), ...numbers.map((number) => join(root, `drizzle/meta/${number}_snapshot.json`)),
  ], { encoding: 'utf8' })
  const kept = (tag: string): string => execFileSync('cat', [join(root, `drizzle/${tag}.sql`)], { encoding: 'utf8' })
  t.equal(kept('0000_shared_tables'), written('0000'))
  t.equal(kept('0001_backupd'), written('0001', '0000'))
  t.equal(kept('0002_operations'), written('0002', '0001'))
  t.end()
})

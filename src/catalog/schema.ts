// Property names are the column names, so that a row reads the same here, in SQL and in `--json` output.
export * from './schema/outside.js'
export * from './schema/own.js'
export * from './schema/storages.js'
export * from './schema/backups.js'
export * from './schema/audits.js'
export * from './schema/search.js'

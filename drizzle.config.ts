import { defineConfig } from 'drizzle-kit'

// `npx drizzle-kit generate` writes the next migration from what changed in the schema, `check` tells whether the folder is whole.
// The table is the one that `backupd migrate` keeps.
export default defineConfig({
  dialect: 'postgresql',
  schema: './src/catalog/schema.ts',
  out: './drizzle',
  migrations: { table: 'backupd_migrations', schema: 'public' },
  dbCredentials: { url: process.env['BACKUPD_DATABASE_URL'] ?? process.env['DATABASE_URL'] ?? '' },
})

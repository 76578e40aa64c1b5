// Writes docs/backupd.schema.json anew, from the compiled program: npm run schema
import { writeFileSync } from 'node:fs'
import { configurationJsonSchema } from '../dist/operation/apply/schema.js'

writeFileSync(new URL('../docs/backupd.schema.json', import.meta.url), `${JSON.stringify(configurationJsonSchema(), null, 2)}\n`)

import { z } from 'zod'
import { kinds } from './kinds.js'

/** The version of the form that configuration files have. */
export const CONFIGURATION_VERSION = 1

const sections = Object.fromEntries(kinds.map(({ section, schema }) => [section, z.array(schema, 'a list').optional()]))

/** A whole configuration file. */
export const configurationSchema = z.strictObject({
  $schema: z.string('text').optional().describe('Where this schema is, for editors.'),
  version: z.literal(CONFIGURATION_VERSION, `${CONFIGURATION_VERSION}, the only version there is`).optional().describe('Version of the form of this file.'),
  ...sections,
}, 'an object with lists such as sources, storages and schedules')

/** What a file may hold, as JSON Schema (draft 2020-12): for editors, and for checks where backupd is not. */
export const configurationJsonSchema = (): Record<string, unknown> => ({
  title: 'Configuration of backupd',
  description: 'What "backupd apply" reads and "backupd export" writes.',
  ...z.toJSONSchema(configurationSchema, { io: 'input', target: 'draft-2020-12' }),
})

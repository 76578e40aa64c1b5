import { z } from 'zod'
import { activeKeys, insertKey, listKeys, removeKey, retireKey, usesOfKey, type Key } from '../../catalog/keys.js'
import { keyHash, parseRecipient } from '../../encryption/keys.js'
import { BackupdError } from '../../errors.js'
import { brokenRules, type Finding, type Kind } from './kind.js'
import { counted, named, refuseInUse } from '../settings/configure.js'
import { checkKeyName, encryptingSchedules } from '../settings/keys.js'

interface KeyDoc {
  name: string
  recipient: string
  retired: boolean
}

const defaults = { retired: false }

const schema = z.strictObject({
  name: z.string('text').describe('What to call it: letters, digits, dots, dashes and underscores.'),
  recipient: z.string('text').describe('The public key, age1…; its private half is kept elsewhere.'),
  retired: z.boolean('true or false').default(defaults.retired).describe('No new backup is encrypted to it. Retiring is final.'),
})

const wrong = (field: string, code: string, message: string, hint: string): Finding => ({ field, error: new BackupdError(code, message, { kind: 'usage', hint }) })

/** Public keys that backups are encrypted to. */
export const keyKind: Kind<KeyDoc, Key> = {
  section: 'keys',
  type: 'key',
  schema,
  defaults,
  fields: () => Object.keys(schema.shape),
  read: async (_env, tx) => (await listKeys(tx)).map((row) => ({ id: row.id, row, doc: { name: row.name, recipient: row.recipient, retired: row.retired_at !== null } })),
  prepare: async (_scope, item) => ({ ...item, recipient: item.recipient.trim() }),
  check: async ({ tx }, doc, existing, fields) => {
    const found = await brokenRules([
      { field: 'name', check: () => checkKeyName(doc.name) },
      { field: 'recipient', check: () => parseRecipient(doc.recipient) },
    ])
    if (existing !== undefined && fields.includes('recipient')) {
      found.push(wrong('recipient', 'key.recipient_changed', 'the key of this name in the catalog is another one, which backups may be encrypted to', 'Give the new key another name, and say retired: true for the old one.'))
    }
    if (existing !== undefined && fields.includes('retired') && !doc.retired) {
      found.push(wrong('retired', 'key.retired', 'the key is retired in the catalog, and that is final', 'Say retired: true, or take the key out of the file.'))
    }
    const same = existing === undefined ? (await listKeys(tx)).find(({ recipient }) => recipient === doc.recipient) : undefined
    if (same !== undefined) found.push(wrong('recipient', 'key.exists', `the catalog has this key already, under the name ${same.name}`, 'Use that name.'))
    return found
  },
  create: async ({ tx }, doc) => {
    const added = await insertKey(tx, { name: doc.name, recipient: doc.recipient, fingerprint: keyHash([doc.recipient]) })
    const row = doc.retired ? ((await retireKey(tx, added.id)) ?? added) : added
    return { result: row, id: row.id, after: row }
  },
  change: async ({ tx }, existing) => {
    const row = (await retireKey(tx, existing.id)) ?? existing.row
    return { result: row, id: row.id, before: existing.row, after: row }
  },
  remove: async ({ tx }, { row }) => {
    const { executions } = await usesOfKey(tx, row)
    refuseInUse('key', row.name, counted(executions, 'execution'), 'Name it in the file with retired: true.')
    await removeKey(tx, row.id)
    return { result: row, id: row.id, before: row }
  },
  settle: async ({ tx }) => {
    if ((await activeKeys(tx)).length > 0) return
    const schedules = named(await encryptingSchedules(tx), 'schedule')
    if (schedules.length === 0) return
    throw new BackupdError('key.in_use', `no key would be left to encrypt to, and that is what ${schedules.join('; ')} does`, { hint: 'Name another public key under keys.', details: { uses: schedules } })
  },
}

import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { writeAudit } from '../audit/audit.js'
import { readIdentities, recipientOf } from '../encryption/keys.js'
import { BackupdError, messageOf } from '../errors.js'
import type { Secret } from '../secret.js'
import type { Environment } from './environment.js'

type Places = Pick<Environment['config'], 'identityFile' | 'stateDir'>

/** Where `backupd key generate` puts private keys. */
export const identityFolder = ({ stateDir }: Pick<Places, 'stateDir'>): string => join(stateDir, 'identities')

/** The key files at hand: that of BACKUPD_IDENTITY_FILE, else those of the state directory. */
export const identityFiles = async (config: Places): Promise<string[]> => {
  if (config.identityFile !== undefined) return [config.identityFile]
  const folder = identityFolder(config)
  try {
    return (await readdir(folder)).filter((name) => name.endsWith('.txt')).sort().map((name) => join(folder, name))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return []
    throw new BackupdError('key.identity_file', `the folder of private keys cannot be read: ${messageOf(error)}`, {
      kind: 'configuration', cause: error, hint: `Make ${folder} readable for the user that backupd runs as, or set BACKUPD_IDENTITY_FILE.`,
    })
  }
}

/** The age private keys that this machine holds; none is no error. Fails with `key.identity_file`. */
export const identitiesAtHand = async ({ config, log }: { config: Places; log: Environment['log'] }): Promise<Secret[]> => {
  const { identities, warnings } = await readIdentities(await identityFiles(config))
  for (const warning of warnings) log.warn(warning)
  return identities
}

export interface KeyUse {
  identities: readonly Secret[]
  /** What for, such as `restore`. */
  purpose: string
  /** The backup that is read. */
  backupId: string
}

/** Puts on record that private keys are used. Call it before they are. */
export const auditKeyAccess = async ({ catalog, actor }: Environment, { identities, purpose, backupId }: KeyUse): Promise<void> => {
  await writeAudit(catalog.db, {
    event_type: 'key.used',
    event_category: 'access',
    action: 'view',
    actor,
    resource: { type: 'key' },
    risk_level: 'medium',
    correlation_id: backupId,
    event_data: { purpose, backup_id: backupId, recipients: await Promise.all(identities.map(recipientOf)) },
  })
}

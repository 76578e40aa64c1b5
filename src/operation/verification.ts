import { sql } from '../catalog/drizzle.js'
import type { Execution, NewExecution } from '../catalog/executions.js'
import { jsonObject } from '../catalog/json.js'
import type { ExecutionStatus } from '../catalog/statuses.js'
import { BackupdError, messageOf } from '../errors.js'
import { chooseTools, findTools } from '../postgres/tools.js'
import type { Manifest } from '../repository/manifest.js'
import type { Storage } from '../storage/storage.js'
import type { Environment } from './environment.js'
import { errorDetails } from './failure.js'
import { folderOf } from './folder.js'
import { auditKeyAccess, identitiesAtHand } from './identities.js'
import type { Tracker } from './progress.js'
import { ownsRecipient } from './readback.js'
import { damagedError, verify, type Verification, type VerifyLevel } from './verify.js'

/** How a verification ends for the execution's row. */
export interface VerificationOutcome {
  status: Extract<ExecutionStatus, 'completed' | 'corrupted'>
  set: Partial<NewExecution>
  verification: Verification | undefined
  /** For the audit trail. */
  event: Record<string, unknown>
  /** The backup is damaged. */
  error?: BackupdError
}

interface Request {
  execution: Execution
  storage: Storage
  tracker: Tracker
  signal: AbortSignal
  /** Undefined: the deepest that the keys at hand allow. */
  level?: VerifyLevel
}

const majorOf = (version: string): number => Number.parseInt(version, 10)

/** pg_restore reads archives of its own and of older versions of pg_dump. */
export const toolsFor = (env: Environment) => async (manifest: Manifest) =>
  chooseTools(await findTools({ pgBin: env.config.pgBin }), majorOf(manifest.pg_dump_version))

/** The manifest's text that the catalog keeps, or null for an execution without one. */
export const knownManifest = (execution: Execution): string | null => {
  const text = jsonObject(execution.execution_metadata)['manifest']
  return typeof text === 'string' ? text : null
}

const recipientsOf = (execution: Execution): string[] => {
  const text = knownManifest(execution)
  if (text === null) return []
  const { recipients } = JSON.parse(text) as { recipients?: unknown }
  return Array.isArray(recipients) ? recipients.filter((value) => typeof value === 'string') : []
}

const deepest = async (execution: Execution, identities: Awaited<ReturnType<typeof identitiesAtHand>>): Promise<VerifyLevel> => {
  const recipients = recipientsOf(execution)
  return recipients.length === 0 || (await ownsRecipient(recipients, identities)) ? 'archive' : 'checksum'
}

const now = sql`clock_timestamp()` as unknown as Date

/** Reads the backup of `execution` back and says what its row should hold. Fails only when cancelled, or when the key for an asked-for level is not at hand. */
export const checkBackup = async (env: Environment, { execution, storage, tracker, signal, level }: Request): Promise<VerificationOutcome> => {
  tracker.enter('verify')
  const identities = await identitiesAtHand(env)
  const depth = level ?? (await deepest(execution, identities))
  if (depth === 'archive' && identities.length > 0 && recipientsOf(execution).length > 0) {
    await auditKeyAccess(env, { identities, purpose: 'verify', backupId: execution.backup_id })
  }
  const verification = await verify({
    storage,
    backupId: folderOf(execution),
    known: execution.checksum === null ? null : { checksum: execution.checksum, text: knownManifest(execution) },
    level: depth,
    identities,
    tools: toolsFor(env),
    onBytes: (checked) => tracker.moved({ checked }),
    onPart: () => undefined,
    signal,
  })
  const event = { level: verification.level, parts: verification.parts, bytes: verification.bytes, damage: verification.damage }
  if (verification.ok) {
    return { status: 'completed', verification, event, set: { verification_status: 'verified', verified_at: now, verification_checksum: verification.checksum } }
  }
  const error = damagedError(execution.backup_id, verification)
  return {
    status: 'corrupted', verification, event, error,
    set: {
      verification_status: 'corrupted', verified_at: now, verification_checksum: verification.checksum,
      error_message: error.message, error_details: errorDetails(error, 'verify'),
    },
  }
}

/** Like `checkBackup` right after a backup: what prevents the check is a warning there, because the backup itself is stored. */
export const verifyStored = async (env: Environment, request: Request): Promise<VerificationOutcome> => {
  try {
    return await checkBackup(env, request)
  } catch (error) {
    const cancelled = request.signal.aborted
    request.tracker.warn(cancelled ? 'the verification was cancelled' : `the backup is stored, but could not be verified: ${messageOf(error)}`)
    return {
      status: 'completed', verification: undefined,
      set: { verification_status: cancelled ? 'pending' : 'failed' },
      event: { verification: cancelled ? 'cancelled' : 'failed', code: error instanceof BackupdError ? error.code : 'internal' },
    }
  }
}

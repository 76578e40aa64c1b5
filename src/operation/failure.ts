import { catalogFailure, catalogReason, isCatalogError } from '../catalog/failures.js'
import { BackupdError, messageOf } from '../errors.js'
import { redact } from '../secret.js'
import type { Stage } from './progress.js'

const causes = (error: unknown): string[] => {
  const list: string[] = []
  for (let at = error instanceof Error ? error.cause : undefined; at instanceof Error && list.length < 5; at = at.cause) list.push(catalogReason(at))
  return list
}

// What the catalog's driver throws has no code of ours, and lists the values of the query.
const told = (error: unknown): unknown => (isCatalogError(error) ? catalogFailure(error, 'of this run') : error)

/** What `error_details` says of a failure: code, stage, hint, the tool's last lines; nothing secret. */
export const errorDetails = (thrown: unknown, stage: Stage): Record<string, unknown> => {
  const error = told(thrown)
  const known = error instanceof BackupdError ? error : undefined
  const details = {
    // First, so that what a failure has to say besides never takes the place of what it is.
    ...known?.details,
    code: known?.code ?? 'internal',
    kind: known?.kind ?? 'failed',
    stage,
    retryable: known?.retryable ?? false,
    ...(known?.hint === undefined ? {} : { hint: known.hint }),
    causes: causes(error),
  }
  return JSON.parse(redact(JSON.stringify(details))) as Record<string, unknown>
}

/** The message for `error_message`. */
export const errorMessage = (error: unknown): string => redact(messageOf(told(error)))

/** An error as its row told it, for who follows an execution that another process ran. */
export const recordedError = (message: string | null, details: unknown): BackupdError => {
  const known = (typeof details === 'object' && details !== null ? details : {}) as Record<string, unknown>
  const kinds = ['failed', 'usage', 'notFound', 'configuration', 'integrity'] as const
  const { code, kind, hint, ...rest } = known
  return new BackupdError(typeof code === 'string' ? code : 'failed', message ?? 'it failed, and no reason was recorded', {
    kind: kinds.find((name) => name === kind) ?? 'failed',
    ...(typeof hint === 'string' ? { hint } : {}),
    details: rest,
  })
}

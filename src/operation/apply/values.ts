import { timingSafeEqual, createHash } from 'node:crypto'
import { z } from 'zod'
import { canonicalJson } from '../../audit/canonical.js'
import { isSealed, openSealed, resolveValue, type Sealed } from '../../encryption/secrets.js'
import { BackupdError } from '../../errors.js'
import { Secret } from '../../secret.js'
import { leadsNowhere, type GivenReference } from '../settings/references.js'
import { resolving } from '../sources.js'
import type { Environment } from '../environment.js'

const expectedReference = '{$env: NAME} or {$file: /absolute/path}'

/** A value that stands elsewhere, looked up whenever it is needed. */
export const reference = z.union([
  z.strictObject({ $env: z.string().min(1) }),
  z.strictObject({ $file: z.string().regex(/^\//) }),
], expectedReference).meta({ id: 'reference' })

/** A value that stands elsewhere when the file is applied, and is kept sealed in the catalog from then on. */
export const sealOrder = z.strictObject({ $seal: reference }).meta({ id: 'sealed' })

/** The value of a field that is secret. */
export const secretValue = z.union([z.string().min(1), reference, sealOrder], `text (a number goes in quotes), ${expectedReference}, or either inside {$seal: …}`).meta({ id: 'secret' })

/** The value of a field that is not: text, a number, true or false, or a reference. */
export const plainValue = z.union([z.string(), z.number(), z.boolean(), reference], `text, a number, true or false, ${expectedReference}`).meta({ id: 'value' })

/** A secret that the file leaves to a place which has nothing for us now; what the catalog holds stays. */
export interface Unread {
  unread: string
}

/** A secret as the catalog has it: clear text, as another program may have written it, is wrapped at once. */
export const heldSecret = (value: unknown): unknown => (typeof value === 'string' ? new Secret(value) : value)

export const isUnread = (value: unknown): value is Unread => typeof value === 'object' && value !== null && 'unread' in value

/** Whether it is a value that stands elsewhere. */
export const isReference = (value: unknown): value is GivenReference =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 1 && ('$env' in value || '$file' in value)

const isOrder = (value: unknown): value is { $seal: GivenReference } => typeof value === 'object' && value !== null && '$seal' in value

const sourceOf = (from: GivenReference): string => ('$env' in from ? `the environment variable ${from.$env}` : `the file ${from.$file}`)

/** A secret of the file, ready to be compared and sealed: text and what has to be sealed become secrets, references stay. */
export const takeSecret = async (env: Pick<Environment, 'config'>, value: unknown, field: string): Promise<Secret | GivenReference | Unread> => {
  if (typeof value === 'string') return new Secret(value)
  if (!isOrder(value)) return value as GivenReference
  try {
    return new Secret(await resolveValue(value.$seal, { ...resolving(env), field }))
  } catch (error) {
    if (leadsNowhere(error)) return { unread: sourceOf(value.$seal) }
    throw error
  }
}

// Digests have one length, so that the comparison takes the same time whatever the secrets are.
const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
const sameText = (a: string, b: string): boolean => timingSafeEqual(digest(a), digest(b))

const openedBy = async (env: Pick<Environment, 'config'>, sealed: Sealed): Promise<string | undefined> => {
  try {
    const { key } = resolving(env)
    return openSealed(sealed, key instanceof Secret ? key : await key()).reveal()
  } catch (error) {
    // Sealed under another key, or damaged: whatever it was, it is of no use, and giving it again mends that.
    if (error instanceof BackupdError && error.code.startsWith('secret.')) return undefined
    throw error
  }
}

/** Whether the catalog holds what the file says. Secrets are opened for it, and compared in constant time. */
export const sameValue = async (env: Pick<Environment, 'config'>, current: unknown, wanted: unknown): Promise<boolean> => {
  if (isUnread(wanted)) return isSealed(current) || current instanceof Secret
  if (wanted instanceof Secret) {
    const text = isSealed(current) ? await openedBy(env, current) : current instanceof Secret ? current.reveal() : undefined
    return text !== undefined && sameText(text, wanted.reveal())
  }
  if (current instanceof Secret) return false
  return canonicalJson(current) === canonicalJson(wanted)
}

/** The value for people and for the audit trail: never the secret itself. */
export const shownValue = (value: unknown): unknown => {
  if (value instanceof Secret || isSealed(value) || isUnread(value)) return '[secret]'
  return value
}

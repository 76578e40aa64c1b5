import type { z } from 'zod'
import { Secret } from '../secret.js'
import { channelTypes, type Channel, type ChannelKind, type ChannelType } from './channel.js'
import { discordChannel } from './discord.js'
import { emailChannel } from './email.js'
import { notifyError } from './failure.js'
import { healthchecksChannel } from './healthchecks.js'
import { ntfyChannel } from './ntfy.js'
import { slackChannel } from './slack.js'
import { teamsChannel } from './teams.js'
import { telegramChannel } from './telegram.js'
import { webhookChannel } from './webhook.js'

/** Every kind of notifier: one line each. */
export const channelKinds = {
  webhook: webhookChannel,
  slack: slackChannel,
  discord: discordChannel,
  teams: teamsChannel,
  telegram: telegramChannel,
  email: emailChannel,
  ntfy: ntfyChannel,
  healthchecks: healthchecksChannel,
} satisfies Record<ChannelType, ChannelKind>

/** The kind of `type`. Fails with `notify.config_invalid` for a name that is none. */
export const channelKindOf = (type: string): ChannelKind => {
  const found = (channelKinds as Partial<Record<string, ChannelKind>>)[type]
  if (found !== undefined) return found
  throw notifyError('notify.config_invalid', `there is no notifier type ${JSON.stringify(type)}`, { hint: `The types are ${channelTypes.join(', ')}.` })
}

/** The keys that the configuration of `type` may have. */
export const channelKeys = (type: string): string[] => Object.keys(channelKindOf(type).configSchema.shape)

/** What is wrong with a configuration: the key, or nothing where several keys do not go together, and a sentence without a value in it. */
export interface ChannelProblem {
  key: string | undefined
  message: string
}

const present = (config: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(config)
    .map(([key, value]) => [key, value instanceof Secret ? value.reveal() : value] as const)
    .filter(([, value]) => value !== undefined && value !== null && value !== ''))

const describe = (issue: z.core.$ZodIssue, config: Record<string, unknown>): ChannelProblem => {
  const key = issue.path.join('.')
  if (key === '') return { key: undefined, message: issue.message }
  return { key, message: config[key] === undefined ? `${key} is missing: expected ${issue.message}` : `${key} is not valid: expected ${issue.message}` }
}

/** All that is wrong with the values of a configuration, unknown keys too. References must have been resolved. */
export const channelProblems = (type: string, config: Readonly<Record<string, unknown>>): ChannelProblem[] => {
  const given = present(config)
  const keys = channelKeys(type)
  const unknown = Object.keys(given).filter((key) => !keys.includes(key)).map((key) => ({ key, message: `${key} is not a key of a notifier of type ${type}` }))
  const result = channelKindOf(type).configSchema.safeParse(given)
  return [...unknown, ...(result.success ? [] : result.error.issues.map((issue) => describe(issue, given)))]
}

/** A value as its kind understands it: a number where text stands for one. What does not fit, and secrets and references, stay as they are. */
export const typedChannelValue = (type: string, key: string, value: unknown): unknown => {
  if (typeof value !== 'string' || channelKindOf(type).secretFields.includes(key)) return value
  const field = channelKindOf(type).configSchema.shape[key] as z.ZodType | undefined
  const parsed = field?.safeParse(value)
  return parsed?.success === true && ['number', 'boolean'].includes(typeof parsed.data) ? parsed.data : value
}

/** Opens a notifier with the configuration of its row, references resolved; connects to nothing. Fails with `notify.config_invalid` (exit code 4). */
export const openChannel = (type: string, config: Readonly<Record<string, unknown>>): Channel => {
  const problems = channelProblems(type, config)
  if (problems.length > 0) {
    throw notifyError('notify.config_invalid', `the configuration of the ${type} notifier is not valid: ${problems.map(({ message }) => message).join('; ')}`, { hint: `The keys are ${channelKeys(type).join(', ')}.` })
  }
  return channelKindOf(type).open(present(config))
}

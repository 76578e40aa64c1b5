import type { z } from 'zod'

export const channelTypes = ['webhook', 'slack', 'discord', 'teams', 'telegram', 'email', 'ntfy', 'healthchecks'] as const
export type ChannelType = (typeof channelTypes)[number]

/** What is told; without secrets, and cut to a length that every channel takes. */
export interface Message {
  /** Unique; the same when a message is sent again. */
  id: string
  /** Such as `failure`, or `test`. */
  event: string
  severity: 'info' | 'warning' | 'critical'
  /** One line. */
  title: string
  message: string
  schedule: { id: number; name: string } | null
  storage: { id: number; name: string } | null
  execution: Readonly<Record<string, unknown>> | null
  details: Readonly<Record<string, unknown>>
  /** When it was raised, ISO 8601. */
  raised_at: string
  /** Who sends it. */
  sender: { program: 'backupd'; version: string; host: string }
}

/** An opened notifier. */
export interface Channel {
  /** Resolves when the receiver has taken the message. Fails with a BackupdError `notify.*`; whether another attempt may help is in `retryable`. */
  send(message: Message, options: { signal: AbortSignal }): Promise<void>
}

/** One kind of notifier. */
export interface ChannelKind {
  type: ChannelType
  configSchema: z.ZodObject
  /** Keys of the configuration that are never shown. */
  secretFields: readonly string[]
  /** `config` is what `configSchema` gives. */
  open(config: Readonly<Record<string, unknown>>): Channel
}

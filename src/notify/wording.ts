import type { Message } from './channel.js'

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

const size = (bytes: number): string => {
  const step = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10))
  return step === 0 ? `${bytes} B` : `${(bytes / 1024 ** step).toFixed(1)} ${units[step]}`
}

const shown = (value: unknown): string | undefined => {
  if (value === undefined || value === null || value === '') return undefined
  return typeof value === 'object' ? JSON.stringify(value) : String(value as string | number | boolean)
}

/** `text`, at most `length` characters of it. */
export const cut = (text: string, length: number): string => (text.length <= length ? text : `${text.slice(0, length - 1)}…`)

/** What a reader wants to know besides the message: label and value. */
export const factsOf = ({ event, severity, schedule, storage, execution, raised_at, sender }: Message): [string, string][] => {
  const bytes = execution?.['size_bytes']
  const seconds = execution?.['duration_seconds']
  const list: [string, string | undefined][] = [
    ['Event', `${event} (${severity})`],
    ['Schedule', schedule?.name],
    ['Storage', storage?.name],
    ['Execution', execution === null ? undefined : `${shown(execution['id']) ?? ''} (${shown(execution['status']) ?? ''})`],
    ['Backup', shown(execution?.['backup_id'])],
    ['Attempt', execution?.['attempt'] === 1 ? undefined : shown(execution?.['attempt'])],
    ['Size', typeof bytes === 'number' ? size(bytes) : undefined],
    ['Duration', typeof seconds === 'number' ? `${seconds} s` : undefined],
    ['Code', shown(execution?.['error_code'])],
    ['What to do', shown(execution?.['hint'])],
    ['Host', sender.host],
    ['Time', raised_at],
  ]
  return list.filter((fact): fact is [string, string] => fact[1] !== undefined).map(([label, value]) => [label, cut(value, 500)])
}

/** Title, message and facts as plain lines. */
export const plainText = (message: Message): string =>
  [message.message, '', ...factsOf(message).map(([label, value]) => `${label}: ${value}`)].join('\n')

/** A sign that tells from afar how bad it is. */
export const signOf = ({ event, severity }: Message): string =>
  severity === 'critical' ? '🔴' : severity === 'warning' ? '🟠' : ['success', 'recovery', 'first_success'].includes(event) ? '🟢' : '🔵'

/** RGB of the same. */
export const colourOf = ({ event, severity }: Message): string =>
  severity === 'critical' ? 'd32f2f' : severity === 'warning' ? 'f57c00' : ['success', 'recovery', 'first_success'].includes(event) ? '2e7d32' : '1976d2'

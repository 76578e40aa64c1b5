import { BackupdError, messageOf, type FailureKind } from '../errors.js'

interface FailureClass {
  retryable: boolean
  hint: string
  kind?: FailureKind
}

/** Every code that a notifier fails with. */
export const notifyFailures = {
  'notify.config_invalid': { retryable: false, kind: 'configuration', hint: 'Correct the configuration of the notifier; docs/alerts.md lists the keys of each type.' },
  'notify.unreachable': { retryable: true, hint: 'Check that the receiver runs and that address, port and firewall let this machine reach it.' },
  'notify.timeout': { retryable: true, hint: 'The receiver did not answer in time; check the network and its load.' },
  'notify.tls': { retryable: true, hint: 'The receiver’s certificate is not trusted: name its authority in NODE_EXTRA_CA_CERTS, or correct the host name or the certificate.' },
  'notify.throttled': { retryable: true, hint: 'The receiver asks for fewer messages; they are sent later.' },
  'notify.unavailable': { retryable: true, hint: 'The receiver reports an error of its own; see its log or status page.' },
  'notify.auth': { retryable: false, hint: 'The receiver does not accept the credentials: check token, password or URL of the notifier.' },
  'notify.rejected': { retryable: false, hint: 'The receiver refuses the message as it is; check the URL and the other settings of the notifier.' },
} as const satisfies Record<string, FailureClass>
export type NotifyCode = keyof typeof notifyFailures

/** An error of the class `code`. `retryAfter`: how long the receiver asked to wait, milliseconds. */
export const notifyError = (code: NotifyCode, message: string, options: { cause?: unknown; hint?: string; retryAfter?: number | undefined } = {}): BackupdError => {
  const found: FailureClass = notifyFailures[code]
  return new BackupdError(code, message, {
    kind: found.kind ?? 'failed', retryable: found.retryable, hint: options.hint ?? found.hint,
    ...(options.retryAfter === undefined ? {} : { details: { retryAfter: options.retryAfter } }),
    ...(options.cause === undefined ? {} : { cause: options.cause }),
  })
}

const tlsCodes = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|ERR_TLS|ERR_SSL|HOSTNAME_MISMATCH)/

const codeOf = (error: unknown): string | undefined => {
  for (let at = error, depth = 0; at instanceof Error && depth < 6; at = at.cause, depth += 1) {
    const { code } = at as { code?: unknown }
    if (typeof code === 'string' && code !== 'UND_ERR') return code
    if (at instanceof AggregateError && at.errors.length > 0) return codeOf(at.errors[0])
  }
  return undefined
}

const reasonOf = (error: unknown): string => {
  let at = error
  while (at instanceof Error && at.cause instanceof Error) at = at.cause
  return messageOf(at)
}

/** What it means that `host` could not be talked to. */
export const networkFailure = (host: string, error: unknown): BackupdError => {
  if (error instanceof BackupdError) return error
  const code = codeOf(error) ?? ''
  if (tlsCodes.test(code)) return notifyError('notify.tls', `${host} cannot be trusted: ${reasonOf(error)}`, { cause: error })
  if (/TIMEOUT|TIMEDOUT/.test(code)) return notifyError('notify.timeout', `${host} does not answer: ${reasonOf(error)}`, { cause: error })
  return notifyError('notify.unreachable', `${host} cannot be reached: ${reasonOf(error)}`, { cause: error })
}

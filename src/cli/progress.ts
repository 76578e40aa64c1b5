import type { Progress } from '../operation/progress.js'
import { bytes, type Output } from './output.js'

const LIVE_INTERVAL = 500
const LINE_INTERVAL = 10_000

const clockText = (seconds: number): string => {
  const whole = Math.max(0, Math.round(seconds))
  const minutes = Math.floor(whole / 60)
  return minutes < 60 ? `${minutes}:${String(whole % 60).padStart(2, '0')}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}:${String(whole % 60).padStart(2, '0')}`
}

/** One line: stage, bytes, rate, parts, elapsed, and how much of the last run's size that is. */
export const progressText = (progress: Progress, elapsed: number, expectedBytes: number | undefined): string => {
  const rate = elapsed > 0 ? progress.plain_bytes / elapsed : 0
  const left = expectedBytes !== undefined && rate > 0 ? Math.max(0, expectedBytes - progress.plain_bytes) / rate : undefined
  return [
    progress.stage.padEnd(8),
    `${bytes(progress.plain_bytes)} read`,
    ...(progress.stored_bytes > 0 ? [`${bytes(progress.stored_bytes)} stored`] : []),
    ...(progress.checked_bytes > 0 ? [`${bytes(progress.checked_bytes)} read back`] : []),
    `${bytes(Math.round(rate))}/s`,
    `${progress.parts} parts`,
    clockText(elapsed),
    ...(left === undefined || progress.stage === 'verify' ? [] : [`about ${clockText(left)} left`]),
  ].join('  ')
}

/** Shows progress until the returned function is called: a live line on a terminal, a line every 10 s elsewhere. */
export const showProgress = (out: Output, read: () => Progress | undefined, expectedBytes?: number): (() => void) => {
  const started = performance.now()
  const live = process.stderr.isTTY === true && !out.json
  const show = (): void => {
    const progress = read()
    if (progress === undefined) return
    const text = progressText(progress, (performance.now() - started) / 1000, expectedBytes)
    process.stderr.write(live ? `\r\x1b[2K${text}` : `${text}\n`)
  }
  const timer = setInterval(show, live ? LIVE_INTERVAL : LINE_INTERVAL)
  return () => {
    clearInterval(timer)
    if (live) process.stderr.write('\r\x1b[2K')
  }
}

import type { PartKind } from '../repository/keys.js'

export type Stage = 'prepare' | PartKind | 'manifest' | 'verify' | 'download' | 'restore' | 'validate' | 'copy'

/** How far an operation is; kept in `progress` of its row. */
export interface Progress {
  stage: Stage
  /** Bytes of the plain stream so far. */
  plain_bytes: number
  /** Bytes stored so far. */
  stored_bytes: number
  /** Stored bytes read back so far. */
  checked_bytes: number
  /** Parts finished. */
  parts: number
}

/** Counts what passes, and says when something last did. */
export interface Tracker {
  readonly progress: Readonly<Progress>
  readonly warnings: readonly string[]
  enter(stage: Stage): void
  moved(bytes: { plain?: number; stored?: number; checked?: number }): void
  finishedPart(): void
  warn(message: string): void
}

/** A tracker; `onWarning` is told of each warning once. */
export const createTracker = (onWarning: (message: string) => void = () => undefined): Tracker => {
  const progress: Progress = { stage: 'prepare', plain_bytes: 0, stored_bytes: 0, checked_bytes: 0, parts: 0 }
  const warnings: string[] = []
  return {
    progress,
    warnings,
    enter: (stage) => {
      progress.stage = stage
    },
    moved: ({ plain = 0, stored = 0, checked = 0 }) => {
      progress.plain_bytes += plain
      progress.stored_bytes += stored
      progress.checked_bytes += checked
    },
    finishedPart: () => {
      progress.parts += 1
    },
    warn: (message) => {
      if (warnings.includes(message)) return
      warnings.push(message)
      onWarning(message)
    },
  }
}

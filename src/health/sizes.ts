import { executionById } from '../catalog/executions.js'
import type { Db } from '../catalog/connect.js'
import { jsonObject } from '../catalog/json.js'
import { recentSizes, type BackupSize } from '../catalog/observations.js'
import { parseManifest } from '../repository/manifest.js'
import type { Check, Finding } from './check.js'
import { sizeText } from './size-text.js'

/** With fewer predecessors nothing is known of what is usual. */
const enough = 3
/** Of the usual size. */
const tooSmall = 0.5
const tooLarge = 3
/** Smaller backups may change by any factor with a few rows. Bytes. */
const noise = 256 * 1024
/** A backup of which all parts together are smaller may hold nothing. Bytes. */
const suspicious = 64 * 1024
/** pg_dump's archive of a database without any table: 842 bytes, and longer names. One small table makes it 1488. */
const empty = 1_200

const median = (sizes: readonly number[]): number => [...sizes].sort((a, b) => a - b)[Math.floor(sizes.length / 2)] ?? 0

/** Bytes that pg_dump wrote, without roles and index; undefined when the manifest is not at hand. */
const dumped = async (db: Db, execution: number): Promise<number | undefined> => {
  const row = await executionById(db, execution)
  const text = jsonObject(row?.execution_metadata)['manifest']
  if (typeof text !== 'string') return undefined
  try {
    const parts = parseManifest(text, 'manifest.json').parts.filter(({ kind }) => kind === 'database' || kind === 'schema' || kind === 'data')
    return parts.reduce((sum, { plain_size: size }) => sum + size, 0)
  } catch {
    // What the catalog holds of it is another program's; there is nothing to judge.
    return undefined
  }
}

const bytesText = (bytes: number): string => (bytes < 10_240 ? `${bytes} bytes` : sizeText(bytes))

const judge = async (db: Db, [newest, ...before]: readonly BackupSize[]): Promise<Finding | undefined> => {
  if (newest === undefined) return undefined
  const usual = before.length >= enough ? median(before.map(({ size }) => size)) : undefined
  const about = {
    subject: `size of the newest backup of ${newest.name}`, target: { type: 'schedule', id: newest.schedule },
    metrics: { execution: newest.execution, size_bytes: newest.size, usual_bytes: usual ?? null },
  } as const
  const dump = newest.size < suspicious ? await dumped(db, newest.execution) : undefined
  if (dump !== undefined && dump < empty) {
    const wasFull = before.some(({ size }) => size > 4 * newest.size)
    return {
      ...about, level: wasFull ? 'critical' : 'warning',
      message: `execution ${newest.execution} holds nothing: the dump is ${dump} bytes, as of a database without tables${wasFull ? '; earlier ones were larger' : ''}`,
      advice: 'Look at the source: the right database? were tables dropped? do the patterns of the schedule match anything? Pin an older backup before it expires.',
    }
  }
  if (usual === undefined || Math.max(usual, newest.size) < noise) return undefined
  const share = newest.size / Math.max(1, usual)
  if (share >= tooSmall && share <= tooLarge) return undefined
  return {
    ...about, level: 'warning',
    message: `execution ${newest.execution} read ${bytesText(newest.size)}, where ${bytesText(usual)} is usual`,
    advice: share < 1 ? 'Look whether data is missing in the source, or left out by the schedule.' : 'Look what has grown in the source, and whether the storage has room for it.',
  }
}

const bySchedule = (rows: readonly BackupSize[]): BackupSize[][] => {
  const groups = new Map<number, BackupSize[]>()
  for (const row of rows) groups.set(row.schedule, [...(groups.get(row.schedule) ?? []), row])
  return [...groups.values()]
}

/** The newest backup of each schedule is about as large as those before it, and not empty. */
export const sizesCheck: Check = {
  name: 'sizes',
  type: 'integrity',
  scope: 'shared',
  needsCatalog: true,
  run: async ({ catalog, signal }) => {
    const { db } = await catalog()
    const groups = bySchedule((await recentSizes(db)).filter(({ backup_type }) => backup_type !== 'configuration'))
    const odd: Finding[] = []
    for (const group of groups) {
      signal.throwIfAborted()
      const finding = await judge(db, group)
      if (finding !== undefined) odd.push(finding)
    }
    if (odd.length > 0) return odd
    return [{ subject: 'sizes', level: 'healthy', message: groups.length === 0 ? 'there is no backup yet' : 'the newest backups are as large as usual', metrics: { schedules: groups.length } }]
  },
}

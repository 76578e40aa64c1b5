import type { ProbeStep } from './storage.js'

export const setUps = ['full', 'no list', 'no delete', 'write-only', 'unfit'] as const
export type SetUp = (typeof setUps)[number]

const meanings: Record<SetUp, string> = {
  full: 'backups can be stored, read back, listed and removed',
  'no list': 'backups can be stored and read back, but the catalog cannot be rebuilt from here and leftovers are not found; a legitimate set-up',
  'no delete': 'what is stored stays, whoever has these credentials; a legitimate set-up for immutable storage. Let the service expire objects, because retention cannot',
  'write-only': 'backups can be stored, and nobody with these credentials can read them; a legitimate set-up. Verify and restore with other credentials',
  unfit: 'backups cannot be stored here as it is',
}

/** Which set-up the rights found by a probe make, and one sentence on what that means. */
export const setUpOf = (steps: readonly ProbeStep[]): { setUp: SetUp; meaning: string } => {
  const is = (name: ProbeStep['name'], ...outcomes: ProbeStep['outcome'][]): boolean => steps.some((step) => step.name === name && outcomes.includes(step.outcome))
  const unfit = !is('write', 'ok') || steps.some(({ outcome }) => outcome === 'failed')
  const setUp = unfit ? 'unfit' : is('read', 'denied') ? 'write-only' : is('remove', 'denied') ? 'no delete' : is('list', 'denied') ? 'no list' : 'full'
  return { setUp, meaning: meanings[setUp] }
}

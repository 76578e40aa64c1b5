import { BackupdError } from '../errors.js'
import type { Codec } from './codec.js'

/** The level to use: `level` when it is one of the codec's, its default when none is given. Fails with `compression.level`. */
export const checkedLevel = (codec: Pick<Codec, 'type' | 'levels'>, level: number | undefined): number => {
  const { min, max } = codec.levels
  const chosen = level ?? codec.levels.default
  if (Number.isInteger(chosen) && chosen >= min && chosen <= max) return chosen
  throw new BackupdError('compression.level', `${codec.type} has no compression level ${chosen}`, {
    kind: 'usage',
    hint: min === max ? `Leave the level out; ${codec.type} has none.` : `Use a whole number from ${min} to ${max}; the default is ${codec.levels.default}.`,
  })
}

import { compressionTypes } from '../compression/codec.js'
import { codecs } from '../compression/registry.js'
import type { Check, Finding } from './check.js'

/** Which compressions work on this machine. A schedule that uses one that does not is told of with the schedules. */
export const codecsCheck: Check = {
  name: 'codecs',
  type: 'system',
  scope: 'machine',
  needsCatalog: false,
  run: async () => {
    const reasons = await Promise.all(compressionTypes.map(async (type) => ({ type, why: await codecs[type].unavailable() })))
    const usable = reasons.filter(({ why }) => why === undefined).map(({ type }) => type)
    return [
      { subject: 'compression', level: 'healthy', message: `${usable.join(', ')} can be used` },
      ...reasons.flatMap(({ type, why }): Finding[] => (why === undefined ? [] : [{ subject: 'compression', level: 'warning', message: `${type} cannot be used: ${why}` }])),
    ]
  },
}

import type { Check } from './check.js'

const oldest = [20, 19] as const

/** Node is new enough. */
export const nodeCheck: Check = {
  name: 'node',
  type: 'system',
  scope: 'machine',
  needsCatalog: false,
  run: async () => {
    const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
    const fits = major > oldest[0] || (major === oldest[0] && minor >= oldest[1])
    return [fits
      ? { subject: 'node', level: 'healthy', message: `Node.js ${process.versions.node}` }
      : { subject: 'node', level: 'critical', message: `Node.js ${process.versions.node} is too old`, advice: `Install ${oldest.join('.')} or newer.` }]
  },
}

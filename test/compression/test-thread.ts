// A thread for pool.test.ts: does as it is told, well or badly.
import { serve } from '../../src/compression/thread.js'

serve<string>(async (work, input, output) => {
  if (work === 'exit') process.exit(3)
  if (work === 'throw') setTimeout(() => { throw new Error('thrown in the thread') })
  if (work === 'throw' || work === 'hang') return new Promise<never>(() => undefined)
  if (work === 'fail') throw new Error('it does not work')
  output.set(input)
  return input.length
})

import { compressWithLz4 } from './lz4-native.js'
import { serve } from './thread.js'

serve(compressWithLz4)

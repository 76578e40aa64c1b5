import { serve } from './thread.js'
import { workInWasm } from './zstd-wasm.js'

serve(workInWasm)

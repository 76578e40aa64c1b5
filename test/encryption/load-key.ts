// Run by secrets.test.ts, several at a time: prints the key it finds, eight times asked at once.
import { loadSecretKey } from '../../src/encryption/secrets.js'

const stateDir = process.argv[2] as string
const keys = await Promise.all(Array.from({ length: 8 }, () => loadSecretKey({ secretKey: undefined, stateDir })))
process.stdout.write(keys.map((key) => `${key.reveal()}\n`).join(''))

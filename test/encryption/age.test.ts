import t from 'tap'
import { decrypt, encrypt, encryptedSize } from '../../src/encryption/age.js'
import { encryptionSuite } from '../conformance/encryption.js'

encryptionSuite(t, { name: 'age', encrypt, decrypt, encryptedSize })

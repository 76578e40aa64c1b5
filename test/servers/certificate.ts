import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { own } from './process.js'

/** A self-signed certificate for every name the tests use; it is its own authority, so clients trust it by its file. */
export const makeCertificate = (dir: string): { cert: string; key: string } => {
  const cert = join(dir, 'cert.pem')
  const key = join(dir, 'key.pem')
  const names = 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2'
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', names, '-keyout', key, '-out', cert], { stdio: 'pipe' })
  own(cert)
  own(key)
  return { cert, key }
}

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { account, freePort, own, serverDir, startServer, type Running } from './process.js'

export interface SshServer extends Running {
  host: string
  port: number
  username: string
  password: string
  /** A private key that may log in, protected by `passphrase`, and one without. */
  privateKey: string
  passphrase: string
  plainKey: string
  /** `SHA256:...` as `ssh-keygen -l` prints it. */
  fingerprint: string
  /** The folder for objects, writable. */
  root: string
}

const WRAPPER = ['/usr/lib/x86_64-linux-gnu/libnss_wrapper.so', '/usr/lib/aarch64-linux-gnu/libnss_wrapper.so']

/**
 * OpenSSH without root and without an account of the machine: libnss_wrapper gives it a user database of its own, which password
 * logins need. Keys and passwords both work. Source of the settings: sshd_config(5), nss_wrapper(1).
 */
export const startSshd = async ({ extra = [], port: wanted, hostKey }: { extra?: string[]; port?: number; hostKey?: string } = {}): Promise<SshServer> => {
  const dir = serverDir('sshd')
  const at = (name: string): string => join(dir, name)
  const wrapper = WRAPPER.find((path) => existsSync(path))
  if (wrapper === undefined) throw new Error('libnss_wrapper.so is not there: it comes with libnss-wrapper (scripts/test-tools.sh)')
  const port = wanted ?? (await freePort())
  const username = 'backupd'
  const password = 's3cret Pässword'
  const passphrase = 'open sesame'
  const keygen = (name: string, phrase: string): void => void execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', phrase, '-f', at(name)])
  if (hostKey === undefined) keygen('hostkey', '')
  else for (const suffix of ['', '.pub']) copyFileSync(hostKey + suffix, at(`hostkey${suffix}`))
  keygen('user', passphrase)
  keygen('plain', '')
  const hash = execFileSync('openssl', ['passwd', '-6', '-stdin'], { input: password }).toString().trim()
  const { uid, gid } = account()
  mkdirSync(at('root'))
  writeFileSync(at('passwd'), `${username}:x:${uid}:${gid}::${at('root')}:/bin/sh\nsshd:x:${uid}:${gid}::${dir}:/bin/sh\n`)
  writeFileSync(at('shadow'), `${username}:${hash}:19000:0:99999:7:::\n`)
  writeFileSync(at('group'), `users:x:${gid}:\n`)
  writeFileSync(at('keys'), readFileSync(at('user.pub'), 'utf8') + readFileSync(at('plain.pub'), 'utf8'))
  writeFileSync(at('conf'), [
    `Port ${port}`, 'ListenAddress 127.0.0.1', `HostKey ${at('hostkey')}`, 'PidFile none', 'UsePAM no', 'StrictModes no', `AuthorizedKeysFile ${at('keys')}`,
    'PasswordAuthentication yes', 'KbdInteractiveAuthentication no', 'MaxStartups 100', 'MaxSessions 100', 'Subsystem sftp internal-sftp', ...extra, '',
  ].join('\n'))
  for (const name of ['root', 'passwd', 'shadow', 'group', 'keys', 'conf', 'hostkey', 'hostkey.pub']) own(at(name))
  chmodSync(at('hostkey'), 0o600)
  const running = await startServer({
    command: '/usr/sbin/sshd',
    args: ['-D', '-e', '-f', at('conf')],
    env: { LD_PRELOAD: wrapper, NSS_WRAPPER_PASSWD: at('passwd'), NSS_WRAPPER_SHADOW: at('shadow'), NSS_WRAPPER_GROUP: at('group') },
    port,
    dir,
    comesFrom: 'openssh-server',
  })
  const blob = Buffer.from(readFileSync(at('hostkey.pub'), 'utf8').split(' ')[1] ?? '', 'base64')
  const fingerprint = `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`
  return { ...running, host: '127.0.0.1', port, username, password, privateKey: at('user'), passphrase, plainKey: at('plain'), fingerprint, root: at('root') }
}

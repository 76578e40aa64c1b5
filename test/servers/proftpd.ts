import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { makeCertificate } from './certificate.js'
import { account, freePorts, own, serverDir, startServer, type Running } from './process.js'

/** An FTP server, as its client sees it. */
export interface FtpServer extends Running {
  host: string
  port: number
  /** The control port and, after it, those of the data connections: what a proxy in front must forward, port by port. */
  ports: number[]
  username: string
  password: string
  /** The folder that the user lands in and may write to. */
  root: string
  /** The certificate to trust. */
  ca: string
}

export interface ProftpdOptions {
  tls?: 'none' | 'explicit' | 'implicit'
  /** More lines of configuration. */
  extra?: string[]
  /** Whether an upload may continue at an offset; the server's own default is no. */
  restart?: boolean
  /** SFTP of mod_sftp in place of FTP. */
  sftp?: boolean
}

const PASSIVE = 20

const groupName = (gid: number): string =>
  readFileSync('/etc/group', 'utf8').split('\n').find((line) => line.split(':')[2] === String(gid))?.split(':')[0] ?? String(gid)

/** ProFTPD with a password file of its own. Source of the directives: http://www.proftpd.org/docs/directives/ */
export const startProftpd = async ({ tls = 'none', extra = [], restart = true, sftp = false }: ProftpdOptions = {}): Promise<FtpServer> => {
  const dir = serverDir('proftpd')
  const at = (name: string): string => join(dir, name)
  const write = (name: string, text: string): void => {
    writeFileSync(at(name), text, { mode: 0o600 })
    own(at(name))
  }
  const port = await freePorts(1 + PASSIVE)
  const username = 'backupd'
  const password = 's3cret Pässword'
  const hash = execFileSync('openssl', ['passwd', '-6', '-stdin'], { input: password }).toString().trim()
  mkdirSync(at('root'))
  own(at('root'))
  const { cert, key } = makeCertificate(dir)
  const { uid, gid } = account()
  write('passwd', `${username}:${hash}:${uid}:${gid}::${at('root')}:/bin/sh\n`)
  write('group', `users:x:${gid}:\n`)
  const secure = [
    'LoadModule mod_tls.c', 'TLSEngine on', `TLSLog ${at('tls.log')}`, `TLSRSACertificateFile ${cert}`, `TLSRSACertificateKeyFile ${key}`, 'TLSRequired on',
    ...(tls === 'implicit' ? ['TLSOptions UseImplicitSSL'] : []),
  ]
  const shell = ['LoadModule mod_sftp.c', 'SFTPEngine on', `SFTPLog ${at('sftp.log')}`, `SFTPHostKey ${at('hostkey')}`, 'SFTPAuthMethods password']
  if (sftp) {
    execFileSync('ssh-keygen', ['-q', '-t', 'rsa', '-b', '2048', '-m', 'PEM', '-N', '', '-f', at('hostkey')])
    own(at('hostkey'))
  }
  write('conf', [
    'ServerName backupd-test', 'ServerType standalone', `User ${process.getuid?.() === 0 ? 'nobody' : userInfo().username}`, `Group ${groupName(gid)}`, `Port ${port}`, 'DefaultAddress 127.0.0.1', 'SocketBindTight on', 'UseReverseDNS off', 'UseIPv6 off',
    `PassivePorts ${port + 1} ${port + PASSIVE}`, `PidFile ${at('pid')}`, `ScoreboardFile ${at('score')}`, 'DelayEngine off', 'ControlsEngine off',
    'AuthOrder mod_auth_file.c', `AuthUserFile ${at('passwd')}`, `AuthGroupFile ${at('group')}`, 'RequireValidShell off', 'WtmpLog off', `SystemLog ${at('log')}`,
    'TransferLog none', 'AllowOverwrite on', `AllowStoreRestart ${restart ? 'on' : 'off'}`, 'ListOptions -a', 'ModulePath /usr/lib/proftpd',
    ...(sftp ? shell : tls === 'none' ? [] : secure), ...extra, '',
  ].join('\n'))
  const running = await startServer({ command: '/usr/sbin/proftpd', args: ['-n', '-q', '-c', at('conf')], port, dir, comesFrom: 'proftpd-core and proftpd-mod-crypto' })
  return { ...running, host: '127.0.0.1', port, ports: Array.from({ length: 1 + PASSIVE }, (_, index) => port + index), username, password, root: at('root'), ca: cert }
}

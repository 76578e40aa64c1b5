import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { makeCertificate } from './certificate.js'
import { freePorts, own, serverDir, startServer } from './process.js'
import type { FtpServer } from './proftpd.js'

// The package conflicts with ProFTPD's, so scripts/test-tools.sh unpacks it here instead of installing it.
const unpacked = join(dirname(fileURLToPath(import.meta.url)), '../../.cache/vsftpd/usr/sbin/vsftpd')
const PASSIVE = 20

/**
 * vsftpd without root: its one account that needs no PAM is the anonymous one, which here has a password (`email_password_file`)
 * and may write. TLS session reuse is demanded, as by default. Source of the settings: vsftpd.conf(5).
 */
export const startVsftpd = async ({ tls = 'none', extra = [] }: { tls?: 'none' | 'explicit' | 'implicit'; extra?: string[] } = {}): Promise<FtpServer> => {
  const dir = serverDir('vsftpd')
  const at = (name: string): string => join(dir, name)
  const port = await freePorts(1 + PASSIVE)
  const password = 's3cret-Password'
  mkdirSync(at('root'))
  mkdirSync(at('empty'))
  writeFileSync(at('emails'), `${password}\n`)
  const { cert, key } = makeCertificate(dir)
  const secure = [
    'ssl_enable=YES', `implicit_ssl=${tls === 'implicit' ? 'YES' : 'NO'}`, `rsa_cert_file=${cert}`, `rsa_private_key_file=${key}`, 'ssl_tlsv1=YES',
    'allow_anon_ssl=YES', 'force_anon_logins_ssl=YES', 'force_anon_data_ssl=YES', 'ssl_ciphers=HIGH',
  ]
  writeFileSync(at('conf'), [
    'listen=YES', 'listen_address=127.0.0.1', `listen_port=${port}`, 'background=NO', 'run_as_launching_user=YES', 'local_enable=NO', 'anonymous_enable=YES',
    'write_enable=YES', 'anon_upload_enable=YES', 'anon_mkdir_write_enable=YES', 'anon_other_write_enable=YES', 'anon_world_readable_only=NO', 'anon_umask=022',
    `anon_root=${at('root')}`, 'allow_writeable_chroot=YES', 'secure_email_list_enable=YES', `email_password_file=${at('emails')}`, 'ftp_username=nobody',
    'nopriv_user=nobody', `secure_chroot_dir=${at('empty')}`, 'seccomp_sandbox=NO', 'isolate=NO', 'isolate_network=NO', 'xferlog_enable=NO', 'utf8_filesystem=YES',
    `pasv_min_port=${port + 1}`, `pasv_max_port=${port + PASSIVE}`, ...(tls === 'none' ? [] : secure), ...extra, '',
  ].join('\n'))
  for (const name of ['root', 'empty', 'emails', 'conf']) own(at(name))
  const running = await startServer({ command: existsSync(unpacked) ? unpacked : '/usr/sbin/vsftpd', args: [at('conf')], port, dir, comesFrom: 'vsftpd' })
  return {
    ...running, host: '127.0.0.1', port, ports: Array.from({ length: 1 + PASSIVE }, (_, index) => port + index), username: 'anonymous', password, root: at('root'), ca: cert,
  }
}

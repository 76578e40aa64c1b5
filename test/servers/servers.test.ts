import { execFileSync } from 'node:child_process'
import t from 'tap'
import { startAzurite } from './azurite.js'
import { startProftpd } from './proftpd.js'
import { startSshd } from './sshd.js'
import { startVsftpd } from './vsftpd.js'

for (const [name, start] of [['proftpd', startProftpd], ['vsftpd', startVsftpd]] as const) {
  for (const tls of ['none', 'explicit', 'implicit'] as const) {
    t.test(`${name}, TLS ${tls}, takes a file from a stock client and stops`, async (t) => {
      const server = await start({ tls })
      t.teardown(server.stop)
      const scheme = tls === 'implicit' ? 'ftps' : 'ftp'
      execFileSync('curl', ['-sS', '--cacert', server.ca, ...(tls === 'none' ? [] : ['--ssl-reqd']), '--user', `${server.username}:${server.password}`, '-T', '-', `${scheme}://127.0.0.1:${server.port}/a.txt`], { input: 'hello' })
      const back = execFileSync('curl', ['-sS', '--cacert', server.ca, ...(tls === 'none' ? [] : ['--ssl-reqd']), '--user', `${server.username}:${server.password}`, `${scheme}://127.0.0.1:${server.port}/a.txt`])
      t.equal(back.toString(), 'hello')
    })
  }
}

t.test('sshd lets the key in', async (t) => {
  const server = await startSshd()
  t.teardown(server.stop)
  const out = execFileSync('sftp', ['-i', server.plainKey, '-P', String(server.port), '-oStrictHostKeyChecking=no', '-oUserKnownHostsFile=/dev/null', '-b', '-', `${server.username}@127.0.0.1`], { input: 'pwd\n', stdio: ['pipe', 'pipe', 'pipe'] })
  t.match(out.toString(), 'working directory')
})

t.test('azurite answers', async (t) => {
  const server = await startAzurite()
  t.teardown(server.stop)
  t.equal((await fetch(`${server.endpoint}/?comp=list`)).status, 403)
})

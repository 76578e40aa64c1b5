import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startPostgres } from '../support/postgres-server.js'
import { connectTo } from '../support/sql.js'
import { tempDir } from '../support/temp.js'
import { bootMachine } from './machine.js'

t.setTimeout(300_000)

const root = fileURLToPath(new URL('../..', import.meta.url))
const password = 'of-the-service-test'

// What the install guide says, and then a day in the life of the service.
const script = `
export BACKUPD_SECRET_KEY_FILE=/etc/backupd/secret-key
show() { systemctl show backupd --property="$1" --value; }
wait_for() { for _ in $(seq 300); do eval "$1" && return; sleep 0.2; done; echo "waited in vain: $1"; }
get() { node -e 'fetch("http://127.0.0.1:" + process.argv[1]).then(async (r) => console.log(r.status, (await r.text()).trim()), (e) => console.log(e.message))' "$PORT$1"; }
systemd-sysusers
systemctl start backupd || systemctl status --no-pager backupd
echo "started: $(show ActiveState) $(show SubState)"
wait_for '[ "$(get /readyz)" = "200 ok" ]'
echo "live: $(get /livez)"
echo "runs as: $(stat -c %U /proc/$(show MainPID))"
echo "status: $(show StatusText)"
backupd key generate --out /root/key.txt
backupd source add shop --url - < /etc/backupd/source-url
backupd storage add disk --type local --set base_path=/var/lib/backupd/backups
for codec in zstd gzip lz4; do
  backupd schedule add "$codec" --cron @yearly --source shop --storage disk --compression "$codec"
  backupd run-now "$codec" --json > "/tmp/$codec.json" || cat "/tmp/$codec.json"
  echo "$codec: $(node -p 'const r = JSON.parse(require("fs").readFileSync(process.argv[1])); r.status + " " + r.verification_status' "/tmp/$codec.json")"
done
echo "objects of: $(find /var/lib/backupd/backups -type f -printf '%u\\n' | sort -u)"
echo "not private: $(find /var/lib/backupd -mindepth 1 -maxdepth 2 -perm /077 -not -type l | head)"
pid=$(show MainPID)
kill -STOP "$pid"
wait_for '[ "$(show MainPID)" != "$pid" ] && [ "$(show ActiveState)" = active ]'
echo "frozen: restarted $(show NRestarts)"
wait_for '[ "$(get /readyz)" = "200 ok" ]'
pid=$(show MainPID)
systemctl stop backupd
echo "stopped: $(show ActiveState) $(show Result) exit $(show ExecMainStatus)"
echo "left: $(pgrep -u backupd | wc -l)"
journalctl --no-pager --unit backupd --output cat
`

t.test('the service lives under systemd, in its sandbox', { skip: process.getuid?.() === 0 ? false : 'booting systemd needs root' }, async (t) => {
  const server = await startPostgres()
  t.teardown(() => server.stop())
  const sql = connectTo(server.url())
  await sql.unsafe(`CREATE ROLE shop SUPERUSER LOGIN PASSWORD '${password}'; CREATE TABLE rows AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i`)
  await sql.end()
  const dir = tempDir(t, 'machine')
  const etc = join(dir, 'etc')
  mkdirSync(etc)
  const port = 20_000 + (process.pid % 20_000)
  writeFileSync(join(etc, 'environment'), `BACKUPD_LISTEN=127.0.0.1:${port}\n`)
  writeFileSync(join(etc, 'secret-key'), 'a key that is only for this test', { mode: 0o600 })
  writeFileSync(join(etc, 'source-url'), server.url('postgres', 'shop', password), { mode: 0o600 })
  // The watchdog's patience is shortened; all else is the unit as it is installed.
  writeFileSync(join(etc, 'drop-in'), ['[Service]', 'WatchdogSec=6', 'RestartSec=1', ''].join('\n'))
  const { output, log } = await bootMachine({
    work: dir,
    timeout: 240_000,
    binds: { '/etc/backupd': etc, ...Object.fromEntries(['dist', 'drizzle', 'systemd', 'node_modules'].map((name) => [`/opt/backupd/${name}`, join(root, name)])) },
    prepare: `cp ${join(root, 'package.json')} $R/opt/backupd/
ln -sf /opt/backupd/dist/main.js $R/usr/local/bin/backupd
cp $R/opt/backupd/systemd/backupd.sysusers $R/usr/lib/sysusers.d/backupd.conf
cp $R/opt/backupd/systemd/backupd.service $R/etc/systemd/system/
rm -rf $R/var/lib/backupd
mkdir $R/etc/systemd/system/backupd.service.d; cp $R/etc/backupd/drop-in $R/etc/systemd/system/backupd.service.d/test.conf`,
    script: `PORT=${port}\n${script}`,
  })
  t.notMatch(output, 'waited in vain')
  t.match(output, /^started: active running$/m)
  t.match(output, /^live: 200 ok$/m)
  t.match(output, /^runs as: backupd$/m)
  t.match(output, /^status: \S+/m, 'systemctl status says what it does')
  for (const codec of ['zstd', 'gzip', 'lz4']) t.match(output, new RegExp(`^${codec}: completed verified$`, 'm'))
  t.match(output, /^objects of: backupd$/m, 'the service did the work that root asked for')
  t.match(output, /^not private: $/m)
  t.match(output, /^frozen: restarted 1$/m, 'the watchdog')
  t.match(output, /^stopped: inactive success exit 0$/m)
  t.match(output, /^left: 0$/m)
  t.notMatch(output, password)
  t.notMatch(output, readFileSync(join(etc, 'secret-key'), 'utf8'))
  if (!t.passing()) process.stderr.write(`${output}\n${log.slice(-2000)}\n`)
})

import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Machine {
  /** An empty folder for what lives on the host's side: overlays and output. */
  work: string
  /** Files of the host to bind, by where the machine sees them. */
  binds: Record<string, string>
  /** Shell commands that set the machine up before its first process, run inside its root folder as `$R`. */
  prepare: string
  /** A bash script that runs as a service once the machine is up; the machine ends when it does. */
  script: string
  /** What the script prints. */
  timeout: number
}

const off = ['systemd-udevd', 'systemd-udev-trigger', 'systemd-resolved', 'systemd-networkd', 'systemd-timesyncd', 'systemd-logind', 'ssh', 'cron', 'postgresql']

/**
 * Boots systemd as the first process of its own mount, process, IPC and control group namespaces, over a copy-on-write view of this
 * machine's root folder: the real systemd, kernel and sandbox, without a virtual machine. The network is the host's. Needs root.
 */
export const bootMachine = async ({ work, binds, prepare, script, timeout }: Machine): Promise<{ output: string; log: string }> => {
  const out = join(work, 'out')
  mkdirSync(out)
  writeFileSync(join(out, 'script'), script)
  writeFileSync(join(out, 'console'), '')
  const setup = `set -e
W=${work}/overlay; mkdir $W; mount -t tmpfs -o size=3g tmpfs $W
mkdir $W/upper $W/scratch $W/root; R=$W/root
mount -t overlay overlay -o lowerdir=/,upperdir=$W/upper,workdir=$W/scratch $R
mount -t tmpfs tmpfs $R/run; mount -t tmpfs -o mode=1777 tmpfs $R/tmp
mount -t sysfs -o ro sysfs $R/sys; mount -t cgroup2 cgroup2 $R/sys/fs/cgroup; mount -t proc proc $R/proc
mount -t tmpfs -o mode=755 tmpfs $R/dev
for d in null zero full random urandom tty; do touch $R/dev/$d; mount --bind /dev/$d $R/dev/$d; done
mkdir $R/dev/shm $R/dev/pts; mount -t tmpfs -o mode=1777 tmpfs $R/dev/shm; mount -t devpts -o newinstance,ptmxmode=0666 devpts $R/dev/pts
ln -s pts/ptmx $R/dev/ptmx; ln -s /proc/self/fd $R/dev/fd
touch $R/dev/console; mount --bind ${out}/console $R/dev/console
mount --bind ${out} $R/mnt
rm -rf $R/etc/systemd/system/*.wants $R/etc/systemd/system/*.service
for u in ${off.join(' ')}; do ln -sf /dev/null $R/etc/systemd/system/$u.service; done
${Object.entries(binds).map(([inside, outside]) => `mkdir -p $R${inside}; mount --bind ${outside} $R${inside}`).join('\n')}
${prepare}
cat > $R/etc/systemd/system/script.service <<UNIT
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/bash /mnt/script
ExecStopPost=/bin/systemctl --no-block exit
StandardOutput=append:/mnt/output
StandardError=append:/mnt/output
UNIT
printf '[Unit]\\nRequires=basic.target script.service\\nAfter=basic.target\\n' > $R/etc/systemd/system/test.target
# Not chroot: the kernel refuses user namespaces, and so PrivateUsers, to a process in one.
mkdir -p $R/oldroot; cd $R; pivot_root . oldroot; umount -l /oldroot; mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=test.target --log-target=console
`
  const child = spawn('unshare', ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--cgroup', '--uts', '--ipc', 'bash', '-c', setup], { stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (log += chunk.toString()))
  const timer = setTimeout(() => child.kill('SIGKILL'), timeout)
  await new Promise<void>((resolve, reject) => child.once('error', reject).once('close', () => resolve()))
  clearTimeout(timer)
  const read = (name: string): string => {
    try {
      return readFileSync(join(out, name), 'utf8')
    } catch {
      return ''
    }
  }
  return { output: read('output'), log: log + read('console') }
}

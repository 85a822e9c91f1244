#!/bin/sh
# A machine under systemd, made of this one's programs: machine.sh FOLDER. Its process ids, mounts, name and control groups are
# its own; FOLDER/srv is its /srv, and its default target is the service `first`, which runs /srv/first.sh. Ends with its first
# process, and leaves the name of an empty control group behind (sallyport-machine-…), as a kernel keeps it until its next start.
set -eu
folder=$1
if [ -z "${2:-}" ]; then
  # A control group of its own comes first: it is the top of what the machine sees.
  exec unshare --mount "$0" "$folder" group
fi
if [ "$2" = group ]; then
  mount --make-rprivate /
  top=$folder/cgroup
  mkdir -p "$top"
  mount -t cgroup2 cgroup2 "$top"
  mkdir -p "$top/sallyport-machine-$$"
  echo $$ >"$top/sallyport-machine-$$/cgroup.procs"
  umount "$top"
  exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup "$0" "$folder" inside
fi

mount --make-rprivate /
root=$folder/root
mkdir -p "$root"
mount -t tmpfs none "$root"
cd "$root"
mkdir -p usr etc/systemd/system etc/sysusers.d var/lib var/log run tmp proc sys dev root home boot srv old
mount --bind /usr usr
mount -t tmpfs none usr/local
mkdir -p usr/local/bin usr/local/lib
for name in bin sbin lib lib32 lib64 libx32; do
  if [ -e "/$name" ]; then cp -a "/$name" "$name"; fi
done
for name in passwd group shadow gshadow nsswitch.conf ssl ld.so.cache ld.so.conf ld.so.conf.d alternatives hosts; do
  if [ -e "/etc/$name" ]; then cp -a "/etc/$name" etc/; fi
done
echo 0123456789abcdef0123456789abcdef >etc/machine-id
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
for name in null zero full random urandom tty; do
  touch "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs none dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs none run
mount --bind "$folder/srv" srv
cat >etc/systemd/system/first.service <<UNIT
[Service]
Type=oneshot
ExecStart=/bin/sh /srv/first.sh
StandardOutput=file:/srv/first.out
StandardError=file:/srv/first.out
UNIT
printf '[Unit]\nWants=first.service\n' >etc/systemd/system/default.target
pivot_root . old
umount -l old
exec env -i container=other /lib/systemd/systemd --system --unit=default.target </dev/null

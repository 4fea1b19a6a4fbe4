#!/usr/bin/env bash
# Unpacks the RabbitMQ of Debian 13 (4.0) and the Erlang it needs into a folder of their own, beside whatever is installed:
#
#   tests/brokers/unpack.sh FOLDER
#
# FOLDER/bin/rabbitmq-server then runs it, in a mount namespace and with FOLDER/root as its root, on the node's own folder.
# Needs root, apt and 300 MB; downloads 80 MB, signed by Debian's keys. A folder that is complete is left as it is.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
[ -e "$folder/complete" ] && exit 0
root=$folder/root apt=$folder/apt
rm -rf "$root" "$apt" "$folder/bin"
mkdir -p "$root" "$folder/bin" "$apt"/{lists/partial,archives/partial,parts}
: >"$apt/status"
# From the mirror that this machine's own packages come from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/parts";
Dir::Etc::preferencesparts "$apt/parts";
Acquire::Languages "none";
APT::Sandbox::User "root";
APT::Install-Recommends "0";
CONF
export APT_CONFIG=$apt/apt.conf
apt-get -qq update
apt-get -qq -y install --download-only rabbitmq-server coreutils dash sed grep findutils hostname >/dev/null
for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$root"; done
for link in bin sbin lib lib64; do [ -e "$root/$link" ] || ln -s "usr/$link" "$root/$link"; done
mkdir -p "$root"/{dev,proc,etc,tmp}
echo "127.0.0.1 localhost" >"$root/etc/hosts"
for program in rabbitmq-server rabbitmqctl; do
    # HOME is in the node's folder, which must lie at the same place inside.
    cat >"$folder/bin/$program" <<PROGRAM
#!/bin/sh
exec unshare --mount sh -ec '
    node=\$(dirname "\$HOME")
    mkdir -p "\$0\$node"
    mount --bind "\$node" "\$0\$node"
    mount --rbind /dev "\$0/dev"
    mount --rbind /proc "\$0/proc"
    exec chroot "\$0" /usr/lib/rabbitmq/bin/$program "\$@"
' "$root" "\$@"
PROGRAM
    chmod 755 "$folder/bin/$program"
done
rm -rf "$apt"
touch "$folder/complete"

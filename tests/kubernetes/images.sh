#!/usr/bin/env bash
# Makes the images that the cluster and the upstream tests need, without a container engine: archives in $CLUSTER/images for
# `ctr images import`, of what build.sh has built and of programs of this machine.
#   CLUSTER=DIR images.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${CLUSTER:?where the cluster lives}/bin
out=$CLUSTER/images
mkdir -p "$out"
tmp=$(mktemp -d "$CLUSTER/images.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

declare -A called
while read -r ours theirs; do called[$ours]=$theirs; done < <("$bin/images")

# image FILE ROOT CONFIG NAME...: one layer, what is below ROOT
image() {
	local file=$1 root=$2 config=$3 work=$tmp/work.$1 names id
	shift 3
	mkdir -p "$work"
	tar --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 -C "$root" -cf "$work/layer.tar" .
	id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
	cat >"$work/config.json" <<-J
	{"architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
	"config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], $config},
	"rootfs": {"type": "layers", "diff_ids": ["sha256:$id"]}}
	J
	names=$(printf ',"%s"' "$@")
	echo "[{\"Config\": \"config.json\", \"RepoTags\": [${names#,}], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
	tar --mtime=@0 -C "$work" -cf "$out/$file.tar" manifest.json config.json layer.tar
	rm -rf "$work"
}

# add ROOT PROGRAM...: programs of this machine with the libraries that they are linked with
add() {
	local root=$1 program file
	shift
	for program; do
		program=$(readlink -f "$(command -v "$program")")
		for file in "$program" $(ldd "$program" 2>/dev/null | grep -oE '/[^ ]+' || true); do
			[ -e "$root$file" ] || install -D "$(readlink -f "$file")" "$root$file"
		done
	done
}

for program in pause sh; do
	[ "$bin/$program" -nt "$here/$program.c" ] || gcc -O2 -static -s -o "$bin/$program" "$here/$program.c"
done
# registered FILE KIND: puts a file where upstream's fake registry serves it as part of the image `pause`; prints its digest
registered() {
	local hash
	hash=$(sha256sum "$1" | cut -d' ' -f1)
	install -D -m 644 "$1" "$tmp/registry/pause/$2/sha256/${hash:0:2}/$hash/data"
	echo "sha256:$hash"
}
described() { echo "{\"mediaType\": \"$1\", \"digest\": \"$(registered "$2" blobs)\", \"size\": $(stat -c %s "$2")}"; }

root=$tmp/pause
install -D "$bin/pause" "$root/pause"
image pause "$root" '"Entrypoint": ["/pause"]' "${called[pause]}"
echo "${called[pause]}" >"$out/sandbox"

# A file system with a shell and what upstream tests call in their pods.
root=$tmp/tools
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc,tmp,uploads,var/run,root}
chmod 1777 "$root/tmp"
busybox=$(command -v busybox)
install "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
ln -sf /proc/mounts "$root/etc/mtab"
add "$root" bash
[ -e "$root/bin/bash" ] || ln -s /usr/bin/bash "$root/bin/bash"
rm "$root/bin/sh"
install "$bin/sh" "$root/bin/sh"
image busybox "$root" '"Cmd": ["/bin/sh"]' "${called[busybox]}"
add "$root" curl wget getent nc.openbsd dig ss ip conntrack dash
rm -f "$root"/bin/{nc,sh,ip,wget} # those of busybox crash (wget) or lack what the tests ask for
echo 'tries = 1' >"$root/etc/wgetrc" # tests wait for it to give up, as that of busybox does at once
ln -s nc.openbsd "$root/bin/nc"
ln -s dash "$root/bin/sh"
for program in bin/nc.openbsd bin/dash sbin/ip; do
	[ -e "$root/$program" ] || ln -s "/usr/$program" "$root/$program"
done
[ -e "$root/bin/ip" ] || ln -s "$(readlink -f "$(command -v ip)")" "$root/bin/ip"
image tools "$root" '"Cmd": ["/bin/sh"]' "${called[iptables]}" "${called[glibc-dns]}"
# The registry that one of the tests pulls from has a single image. It is none that nodes have already: once an image was pulled with
# a secret, the kubelet lets no pod have it without (Kubernetes 1.35, KubeletEnsureSecretPulledImages).
oci=application/vnd.oci.image
tar -xf "$out/pause.tar" -C "$tmp" config.json layer.tar
sed -i 's/"created": "[^"]*"/"created": "1970-01-02T00:00:00Z"/' "$tmp/config.json"
echo "{\"schemaVersion\": 2, \"mediaType\": \"$oci.manifest.v1+json\", \"config\": $(described $oci.config.v1+json "$tmp/config.json"),
\"layers\": [$(described $oci.layer.v1.tar "$tmp/layer.tar")]}" >"$tmp/manifest"
digest=$(registered "$tmp/manifest" manifests)
echo "$digest" >"$tmp/registry/pause/manifests/testing"
mkdir -p "$root/var"
cp -r "$tmp/registry" "$root/var/registry"
porter=$(cd "$here/kubernetes" && go list -mod=readonly -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images/agnhost/porter
install "$bin/agnhost" "$root/agnhost"
ln -s agnhost "$root/agnhost-2"
install -m 644 "$porter"/localhost.{crt,key} "$root/"
install "$bin/coredns" "$root/coredns" # one of the tests of DNS starts it there
image agnhost "$root" '"Entrypoint": ["/agnhost"], "Cmd": ["pause"]' "${called[agnhost]}" "${called[agnhost-previous]}" \
	"${called[nginx]}" agnhost:lab # of nginx, tests need a process that stays, and a shell

root=$tmp/issue
install -D "$bin/regression-issue-74839" "$root/regression-issue-74839"
image issue-74839 "$root" '"Entrypoint": ["/regression-issue-74839"]' "${called[issue-74839]}"

root=$tmp/nonewprivs
install -D -m 6755 "$bin/nonewprivs" "$root/usr/local/bin/nnp" # it is about what becomes of these bits
image nonewprivs "$root" '"Cmd": ["nnp"]' "${called[nonewprivs]}"

root=$tmp/coredns
install -D "$bin/coredns" "$root/coredns"
image coredns "$root" '"Entrypoint": ["/coredns"]' coredns:lab

root=$tmp/tunnel
install -D "$bin/tunnel" "$root/tunnel"
image tunnel "$root" '"Entrypoint": ["/tunnel"]' tunnel:lab

root=$tmp/traefik
mkdir -p "$root/tmp"
install "$bin/traefik" "$root/traefik"
image traefik "$root" '"Entrypoint": ["/traefik"]' traefik:lab

# MetalLB's, by the names that its manifests call. Only the upstream tests need them: they are loaded then.
mkdir -p "$out/upstream"
for part in controller speaker; do
	root=$tmp/metallb-$part
	install -D "$bin/metallb/$part" "$root/$part"
	image "upstream/metallb-$part" "$root" "\"Entrypoint\": [\"/$part\"]" "$(sed -nE "s#^ *image: (.*/$part:.*)#\1#p" "$CLUSTER/manifests/metallb.yaml")"
done

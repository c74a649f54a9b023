#!/usr/bin/env bash
# A Kubernetes cluster of real kubelets on one machine. A node is a set of namespaces (network, mount, pid, uts, cgroup) with
# a containerd of its own; the control plane is one more, `cp`, in which the bridge is that joins the nodes, and in which
# clients outside the cluster are. Nothing changes in the machine's own network.
#
#   cluster.sh up | down | status
#   cluster.sh is-up              says it by its exit status
#   cluster.sh attend             down, once its input has ended: with whoever holds that, however he ends
#   cluster.sh join NODE          one more node, with the next number
#   cluster.sh leave NODE         ends a node for good, and removes what there was of it
#   cluster.sh apiserver FLAGS... starts the API server anew, with further flags
#   cluster.sh reboot NODE        ends a node with everything that runs on it, and starts it again
#   cluster.sh kubelet NODE       starts a node's kubelet anew; where there is no Node, it makes one
#   cluster.sh kubectl ARGS...    as the cluster's administrator
#   cluster.sh exec NODE CMD...   runs CMD in a node, or in cp
#   cluster.sh outside CMD...     runs CMD in the network of cp only, with this machine's files
#   cluster.sh beside CMD...      the same, but it ends with the cluster
#   cluster.sh load FILE...       imports images into every node, also those that join later
#   cluster.sh server             where nodes reach the API server
#   cluster.sh pods               the addresses of pods, a range of each family
#   cluster.sh balancers          the addresses that load balancers may have: nodes are asked for them by ARP and NDP
#
# Environment:
#   CLUSTER          directory: bin (build.sh), images (images.sh), and while it is up run and logs
#   NODES=2          nodes
#   RELEASE=newest   of Kubernetes, or oldest: the oldest that Sluice supports (build.sh oldest)
#   FAMILIES=ipv4    or ipv6, or dual
#   PLUGIN=none      nodes without a plugin and without kube-proxy, as a new one is; reference: bridge, host-local and portmap,
#                    with kube-proxy, to compare with; any other name: as none, and it is what somebody will install
#   POD_CIDRS=yes    no: Nodes are given none, and the API server's network knows where pods are by Sluice's Leases
#   APISERVER_ARGS, CONTROLLER_ARGS, KUBELET_ARGS: further flags
set -euo pipefail
self=$(readlink -f "$0")
CLUSTER=$(realpath -m "${CLUSTER:?which directory}")
run=$CLUSTER/run logs=$CLUSTER/logs bin=$CLUSTER/bin
# What a cluster was made with stays with it.
[ ! -e "$run/settings" ] || [ "${1:-}" = up ] || . "$run/settings"
NODES=${NODES:-2} FAMILIES=${FAMILIES:-ipv4} PLUGIN=${PLUGIN:-none} POD_CIDRS=${POD_CIDRS:-yes} RELEASE=${RELEASE:-newest}
kubernetes=$bin # where its programs are, kubectl among them
[ "$RELEASE" = newest ] || kubernetes=$bin/$RELEASE
export CLUSTER
control_group=sluice-$(printf %s "$CLUSTER" | cksum | cut -d' ' -f1) # two clusters may be up
tunables="vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes"

# ---- addresses: what is asked for of each family of the cluster, the first one first, joined by commas

families() { case $FAMILIES in ipv4) echo 4 ;; ipv6) echo 6 ;; dual) echo 4 6 ;; *) die "FAMILIES=$FAMILIES: ipv4, ipv6 or dual" ;; esac; }
net4() { echo "10.77.0.$1"; }
net6() { echo "fd00:77::$1"; }
pods4() { echo "10.78.$1.0/24"; }
pods6() { echo "fd00:78:0:$1::/64"; }
services4() { echo "10.79.$1"; }
services6() { echo "fd00:79::$1"; }
host() { [ "$1" = cp ] && echo 1 || echo $((10 + ${1#n})); } # the last part of a node's addresses
joined() { local list=$*; echo "${list// /,}"; }
node_ips() { local f; joined $(for f in $(families); do "net$f" "$(host "$1")"; done); }
pod_cidrs() { local f; joined $(for f in $(families); do "pods$f" "${1#n}"; done); }
cluster_cidrs() { local f; joined $(for f in $(families); do [ "$f" = 4 ] && echo 10.78.0.0/16 || echo fd00:78::/48; done); }
service_cidrs() { local f; joined $(for f in $(families); do [ "$f" = 4 ] && echo 10.79.0.0/16 || echo fd00:79::/112; done); }
client4() { echo 10.76.0.1; }
client6() { echo fd00:76::1; }
balancers4() { echo 10.76.1.0/24; }
balancers6() { echo fd00:76:1::/112; }
balancer_cidrs() { local f; joined $(for f in $(families); do "balancers$f"; done); }
dns_ips() { local f; joined $(for f in $(families); do [ "$f" = 4 ] && services4 0.10 || services6 a; done); }
bracketed() { case $1 in *:*) echo "[$1]" ;; *) echo "$1" ;; esac; }
quoted() { printf '"%s"' "${1//,/\", \"}"; }
api_address() { local ips; ips=$(node_ips cp); echo "${ips%%,*}"; }
api() { echo "https://$(bracketed "$(api_address)"):6443"; }

# ---- processes: a pid file has the start time too, so that a pid that is used again is not taken for ours

began=${EPOCHREALTIME/./}
say() { local t=$(((${EPOCHREALTIME/./} - began) / 100000)); printf '    %4s s  %s\n' "$((t / 10)).$((t % 10))" "$*"; }
settings() { printf '%s=%s\n' NODES "$NODES" RELEASE "$RELEASE" FAMILIES "$FAMILIES" PLUGIN "$PLUGIN" POD_CIDRS "$POD_CIDRS"; }
die() { echo "cluster.sh: $*" >&2; exit 1; }
starttime() { sed -E 's/^.*\) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
savepid() { echo "$1 $(starttime "$1")" >"$2"; }
alive() { local p s; [ -e "$1" ] && read -r p s <"$1" && [ -n "$s" ] && [ "$(starttime "$p")" = "$s" ]; }
pid_in() { local p s; alive "$1" || die "no live process in $1"; read -r p s <"$1"; echo "$p"; }
end() { local p s; ! alive "$1" || { read -r p s <"$1"; kill -KILL "$p"; }; }
is_up() { local name; [ -e "$run/up" ] || return 1; for name in $(names); do alive "$run/$name/pid" || return 1; done; }
# Whoever starts or ends something is alone. What he starts does not hold this.
lock() {
	mkdir -p "$CLUSTER"
	exec 9>"$CLUSTER/lock"
	flock -n 9 || { say "waiting for somebody who is at work on this cluster"; flock -w 300 9 || die "$CLUSTER/lock is still held"; }
}
gone() { local i; for i in $(seq 100); do alive "$1" || return 0; sleep 0.1; done; return 1; }
wait_for() {
	local what=$1 limit=$2 i
	shift 2
	for i in $(seq $((limit * 5))); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
	die "timed out after $limit s: $what"
}

# ---- control groups: $control_group/NAME below the caller's own in every hierarchy, noted in $run/NAME/cgroups

make_cgroups() {
	local name=$1 id controllers path mount d f
	: >"$run/$name/cgroups"
	while IFS=: read -r id controllers path; do
		if [ -z "$controllers" ]; then
			mount=$(findmnt -nt cgroup2 -o TARGET | head -1)
		else
			mount=$(findmnt -nt cgroup -O "$controllers" -o TARGET | head -1)
		fi
		[ -n "$mount" ] || continue
		for d in "$mount${path%/}/$control_group" "$mount${path%/}/$control_group/$name"; do
			mkdir -p "$d"
			for f in cpuset.cpus cpuset.mems; do
				[ ! -e "$d/$f" ] || [ -n "$(cat "$d/$f")" ] || cat "${d%/*}/$f" >"$d/$f"
			done
		done
		echo "${controllers:-unified} $d" >>"$run/$name/cgroups"
	done </proc/self/cgroup
}
join_cgroups() { local c d; while read -r c d; do echo "$BASHPID" >"$d/cgroup.procs"; done <"$run/$1/cgroups"; }
drop_cgroups() {
	local c d i
	while read -r c d; do
		for i in $(seq 50); do
			[ -d "$d" ] || break
			find "$d" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
		done
		rmdir "${d%/*}" 2>/dev/null || true
	done <"$run/$1/cgroups"
}

# ---- namespaces: the first process is bin/pause, which reaps; with it ends everything inside

make_namespaces() {
	local name=$1 what=$2 u
	mkdir -p "$run/$name" "$logs"
	rm -f "$run/$name/ready"
	make_cgroups "$name"
	(
		join_cgroups "$name"
		exec setsid unshare --net --pid --fork --mount --uts --cgroup --propagation private \
			bash "$self" _init "$name" "$what" </dev/null >"$logs/$name.init.log" 2>&1 9>&-
	) &
	u=$!
	for _ in $(seq 200); do [ ! -e "$run/$name/ready" ] || break; sleep 0.05; done
	[ -e "$run/$name/ready" ] || die "namespaces of $name: $(cat "$logs/$name.init.log")"
	savepid "$(cut -d' ' -f1 "/proc/$u/task/$u/children")" "$run/$name/pid"
}
# The first process of a node.
init() {
	local name=$1 what=$2 own=$run/$1 c d
	hostname "$name"
	mount -t proc proc /proc
	# Each boot has a name of its own.
	cat /proc/sys/kernel/random/uuid >"$own/boot_id"
	mount --bind "$own/boot_id" /proc/sys/kernel/random/boot_id
	umount -l /sys # not just over it: mountinfo would still list the old control groups
	mount -t sysfs sysfs /sys
	mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
	while read -r c d; do
		case $c in
		unified) mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
		name=*) mkdir "/sys/fs/cgroup/${c#name=}" && mount -t cgroup -o "none,$c" cgroup "/sys/fs/cgroup/${c#name=}" ;;
		*) mkdir "/sys/fs/cgroup/$c" && mount -t cgroup -o "$c" cgroup "/sys/fs/cgroup/$c" ;;
		esac
	done <"$own/cgroups"
	if [ "$what" = node ]; then
		mount -t tmpfs -o mode=755 run /run
		# What a node keeps over a reboot. /sys/fs/bpf is not mounted: that is for whoever needs it.
		for d in /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/lib/sluice /var/log/pods /var/log/containers \
			/etc/cni /etc/sluice /opt/cni /usr/local/bin; do
			mkdir -p "$d" "$own$d"
			mount --bind "$own$d" "$d"
		done
	fi
	# Machines without IPv6 name one of both only.
	printf '%s localhost\n' 127.0.0.1 ::1 >"$own/hosts"
	[ ! -e /etc/hosts ] || mount --bind "$own/hosts" /etc/hosts
	mount --make-rshared /
	ip link set lo up
	touch "$own/ready"
	exec "$bin/pause"
}
enter() { local name=$1 p; shift; p=$(pid_in "$run/$name/pid"); (join_cgroups "$name"; exec nsenter -t "$p" -n -m -p -u -C -- "$@"); }
daemon() { # NODE NAME CMD...
	local name=$1 what=$2 p
	shift 2
	p=$(pid_in "$run/$name/pid")
	(
		join_cgroups "$name"
		exec setsid nsenter -t "$p" -n -m -p -u -C -- "$@" </dev/null >>"$logs/$name.$what.log" 2>&1 9>&-
	) &
	savepid $! "$run/$name/$what.pid"
}
become() { local name=$1; shift; exec nsenter -t "$(pid_in "$run/$name/pid")" -n -- "$@"; } # who ends the script ends it
net() { (become "$@"); }
kubectl() { net cp "$kubernetes/kubectl" --kubeconfig "$run/admin.conf" "$@"; }
names() { local d; for d in "$run"/*/cgroups; do [ ! -e "$d" ] || { d=${d%/cgroups}; echo "${d##*/}"; }; done; }

# ---- keys: one authority, certificates of the API server, tokens for everybody else

keys() {
	local d=$run/pki new="-newkey rsa:2048 -nodes" f
	mkdir -p "$d"
	openssl req -x509 $new -days 30 -subj /CN=lab -keyout "$d/ca.key" -out "$d/ca.crt" 2>/dev/null
	{
		printf 'subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local'
		printf ',IP:%s' "$(net4 1)" "$(net6 1)" "$(services4 0.1)" "$(services6 1)"
	} >"$d/names"
	: >"$d/none"
	certificate api kube-apiserver names
	certificate proxy front-proxy none # as whom the API server asks aggregated ones
	openssl genrsa -out "$d/accounts.key" 2048 2>/dev/null
	openssl rsa -in "$d/accounts.key" -pubout -out "$d/accounts.pub" 2>/dev/null
	: >"$run/tokens.csv"
	account admin admin system:masters
	account controller system:kube-controller-manager system:masters
	account scheduler system:kube-scheduler system:masters
	account proxy system:kube-proxy system:node-proxier
	for f in $(seq 9); do account "n$f" "system:node:n$f" system:nodes; done
}
certificate() { # NAME COMMON-NAME EXTENSIONS
	local d=$run/pki
	openssl req -newkey rsa:2048 -nodes -subj "/CN=$2" -keyout "$d/$1.key" -out "$d/$1.csr" 2>/dev/null
	openssl x509 -req -in "$d/$1.csr" -CA "$d/ca.crt" -CAkey "$d/ca.key" -CAcreateserial -days 30 -extfile "$d/$3" -out "$d/$1.crt" 2>/dev/null
}
account() { # FILE USER GROUP
	local token
	token=$(openssl rand -hex 16)
	echo "$token,$2,$2,\"$3\"" >>"$run/tokens.csv"
	cat >"$run/$1.conf" <<-Y
	{"apiVersion": "v1", "kind": "Config", "current-context": "lab",
	"clusters": [{"name": "lab", "cluster": {"server": "$(api)", "certificate-authority": "$run/pki/ca.crt"}}],
	"users": [{"name": "u", "user": {"token": "$token"}}],
	"contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "u"}}]}
	Y
}

control_plane() {
	local f d=$run/pki
	make_namespaces cp plain
	net cp ip link add br0 type bridge
	for f in $(families); do
		[ "$f" = 4 ] && net cp ip addr add "$(net4 1)/24" dev br0 || net cp ip addr add "$(net6 1)/64" dev br0 nodad
	done
	net cp ip link set br0 up
	for f in $(families); do
		# A load balancer's client is no neighbour of the nodes.
		[ "$f" = 4 ] && net cp ip addr add "$(client4)" dev lo || net cp ip addr add "$(client6)" dev lo nodad
		net cp ip "-$f" route add "$("balancers$f")" dev br0 src "$("client$f")"
	done
	net cp sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	keys
	mkdir -p "$run/etcd"
	daemon cp etcd "$bin/etcd" --data-dir "$run/etcd" --unsafe-no-fsync --log-level warn \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
	api_server
	say "the API server is ready"
	daemon cp controller-manager "$kubernetes/kube-controller-manager" --kubeconfig "$run/controller.conf" --leader-elect=false \
		--authentication-kubeconfig "$run/controller.conf" --authorization-kubeconfig "$run/controller.conf" \
		--service-account-private-key-file "$d/accounts.key" --root-ca-file "$d/ca.crt" --cluster-cidr "$(cluster_cidrs)" \
		--allocate-node-cidrs=false --kube-api-qps 300 --kube-api-burst 600 --profiling=false ${CONTROLLER_ARGS:-}
	daemon cp scheduler "$kubernetes/kube-scheduler" --kubeconfig "$run/scheduler.conf" --leader-elect=false \
		--authentication-kubeconfig "$run/scheduler.conf" --authorization-kubeconfig "$run/scheduler.conf" \
		--kube-api-qps 300 --kube-api-burst 600 --profiling=false
	[ "$POD_CIDRS" != no ] || daemon cp router bash "$self" _route
}
# Tells the network of cp where pods are, for as long as it lives: a Lease has a block in its name, and a node as its holder.
route() {
	local node lease block
	while :; do
		"$kubernetes/kubectl" --kubeconfig "$run/admin.conf" -n kube-system get leases -l sluice.dev/pod-cidr --watch \
			-o 'jsonpath={.spec.holderIdentity} {.metadata.name}{"\n"}' | while read -r node lease; do
			block=${lease#sluice-pod-cidr-}
			case $block in
			*.*) ip route replace "${block%-*}/${block##*-}" via "$(net4 "$(host "$node")")" ;;
			*) block=${block//-/:} && ip -6 route replace "${block%:*}/${block##*:}" via "$(net6 "$(host "$node")")" ;;
			esac
		done || true
		sleep 1 # the API server is away
	done
}

# The API server, with further flags.
api_server() {
	local d=$run/pki
	# Aggregated servers and webhooks are called at their pods: no Services are served here.
	daemon cp apiserver "$kubernetes/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --advertise-address "$(api_address)" --secure-port 6443 \
		--tls-cert-file "$d/api.crt" --tls-private-key-file "$d/api.key" --client-ca-file "$d/ca.crt" \
		--requestheader-client-ca-file "$d/ca.crt" --requestheader-allowed-names front-proxy \
		--requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
		--proxy-client-cert-file "$d/proxy.crt" --proxy-client-key-file "$d/proxy.key" --enable-aggregator-routing \
		--token-auth-file "$run/tokens.csv" --authorization-mode Node,RBAC --allow-privileged=true \
		--service-cluster-ip-range "$(service_cidrs)" --service-account-issuer https://kubernetes.default.svc.cluster.local \
		--service-account-key-file "$d/accounts.pub" --service-account-signing-key-file "$d/accounts.key" \
		--kubelet-preferred-address-types InternalIP --profiling=false ${APISERVER_ARGS:-} "$@"
	wait_for "the API server (see $logs/cp.apiserver.log)" 90 kubectl get --raw /readyz
}

# ---- a node: its Node object, then boot

# The object is made beforehand, so that node N has the Nth pod CIDRs. There are three zones.
announce() {
	local name=$1 cidrs spec='{}' labels
	cidrs=$(pod_cidrs "$name")
	[ "$POD_CIDRS" = no ] || spec="{\"podCIDR\": \"${cidrs%%,*}\", \"podCIDRs\": [$(quoted "$cidrs")]}"
	labels="{\"topology.kubernetes.io/zone\": \"zone$(((${name#n} - 1) % 3 + 1))\"}"
	echo "{\"apiVersion\": \"v1\", \"kind\": \"Node\", \"metadata\": {\"name\": \"$name\", \"labels\": $labels}, \"spec\": $spec}" | kubectl create -f - >/dev/null
}
boot() {
	local name=$1 own=$run/$1 f p files
	make_namespaces "$name" node
	p=$(pid_in "$own/pid")
	net cp ip link add "v-$name" type veth peer name eth0 netns "$p"
	net cp ip link set "v-$name" master br0 up
	for f in $(families); do
		[ "$f" = 4 ] && net "$name" ip addr add "$(net4 "$(host "$name")")/24" dev eth0 \
			|| net "$name" ip addr add "$(net6 "$(host "$name")")/64" dev eth0 nodad
	done
	net "$name" ip link set eth0 up
	for f in $(families); do
		net "$name" ip "-$f" route add default via "$("net$f" 1)"
		# How the API server and clients outside reach pods.
		[ "$POD_CIDRS" = no ] || net cp ip "-$f" route replace "$("pods$f" "${name#n}")" via "$("net$f" "$(host "$name")")"
	done
	[ "$PLUGIN" != reference ] || reference "$name"
	mkdir -p "$own/opt/cni/bin" "$own/etc/cni/net.d"
	cat >"$own/containerd.toml" <<-T
	version = 3
	root = "/var/lib/containerd"
	state = "/run/containerd"
	[grpc]
	address = "/run/containerd/containerd.sock"
	[plugins.'io.containerd.cri.v1.images'.pinned_images]
	sandbox = "$(cat "$CLUSTER/images/sandbox")"
	[plugins.'io.containerd.cri.v1.runtime']
	# runc may not set lower scores without CAP_SYS_RESOURCE
	restrict_oom_score_adj = true
	[plugins.'io.containerd.cri.v1.runtime'.cni]
	bin_dirs = ["/opt/cni/bin"]
	conf_dir = "/etc/cni/net.d"
	[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
	runtime_type = "io.containerd.runc.v2"
	[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
	SystemdCgroup = false
	T
	cat >"$own/kubelet.yaml" <<-Y
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
	authorization: {mode: AlwaysAllow}
	cgroupDriver: cgroupfs
	$([ "$RELEASE" = oldest ] || echo 'failCgroupV1: false') # since 1.31, where those of version 1 are deprecated
	failSwapOn: false
	clusterDNS: [$(quoted "$(dns_ips)")]
	clusterDomain: cluster.local
	containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
	resolvConf: $run/resolv.conf
	evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
	imageGCHighThresholdPercent: 100
	kubeAPIQPS: 100
	kubeAPIBurst: 200
	Y
	daemon "$name" containerd env "PATH=$bin:$PATH" "$bin/containerd" --config "$own/containerd.toml"
	wait_for "containerd of $name (see $logs/$name.containerd.log)" 60 enter "$name" "$bin/ctr" version
	if [ ! -e "$own/loaded" ]; then
		mapfile -t files < <(archives)
		load_into "$name" "${files[@]}"
		touch "$own/loaded"
	fi
	kubelet "$name"
	[ "$PLUGIN" != reference ] || daemon "$name" kube-proxy "$kubernetes/kube-proxy" --config "$own/kube-proxy.yaml"
	say "node $name has started"
}
kubelet() {
	local name=$1
	daemon "$name" kubelet env "PATH=$bin:$PATH" "$kubernetes/kubelet" --config "$run/$name/kubelet.yaml" --kubeconfig "$run/$name.conf" \
		--hostname-override "$name" --node-ip "$(node_ips "$name")" ${KUBELET_ARGS:-}
}
# Ends a daemon: the process that nsenter waits for, and nsenter with it.
end_daemon() { # NODE NAME
	local p
	p=$(pid_in "$run/$1/$2.pid")
	kill -KILL $(cat "/proc/$p/task/$p/children")
	gone "$run/$1/$2.pid"
}
# The plugins of the CNI project and kube-proxy, with routes between the nodes.
reference() {
	local name=$1 own=$run/$1 f other ranges=
	net "$name" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	mkdir -p "$own/opt/cni/bin" "$own/etc/cni/net.d"
	cp -aL /usr/lib/cni/. "$own/opt/cni/bin/"
	for f in $(families); do
		ranges+="${ranges:+, }[{\"subnet\": \"$("pods$f" "${name#n}")\"}]"
		for other in $(seq "$NODES"); do
			[ "n$other" = "$name" ] || net "$name" ip "-$f" route add "$("pods$f" "$other")" via "$("net$f" "$(host "n$other")")"
		done
	done
	cat >"$own/etc/cni/net.d/10-lab.conflist" <<-J
	{"cniVersion": "1.0.0", "name": "lab", "plugins": [
	{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "promiscMode": false,
	 "ipam": {"type": "host-local", "ranges": [$ranges], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
	{"type": "portmap", "capabilities": {"portMappings": true}}]}
	J
	# nf_conntrack_max can be written in the first network namespace only: 0 leaves it alone.
	cat >"$own/kube-proxy.yaml" <<-Y
	apiVersion: kubeproxy.config.k8s.io/v1alpha1
	kind: KubeProxyConfiguration
	mode: iptables
	clientConnection: {kubeconfig: $run/proxy.conf}
	clusterCIDR: $(cluster_cidrs)
	hostnameOverride: $name
	conntrack: {maxPerCore: 0, min: 0}
	Y
}
# What every node has, in the order in which it was loaded.
archives() { ls -d "$CLUSTER"/images/*.tar; ls -dtr "$run"/archives/*.tar 2>/dev/null || true; }
remember() { # FILE...
	local file
	mkdir -p "$run/archives"
	for file; do cp "$file" "$run/archives/$(sha256sum <"$file" | cut -d' ' -f1).tar"; done
}
load_into() {
	local name=$1 file
	shift
	for file; do
		enter "$name" "$bin/ctr" -n k8s.io images import "$file" 2>&1 >/dev/null | { grep -v DEPRECATION >&2 || true; }
	done
}

up() {
	local i pids=()
	if is_up; then
		[ "$(settings)" = "$(<"$run/settings")" ] ||
			die "the cluster that is up is another one ($(paste -sd' ' "$run/settings"), not $(settings | paste -sd' ')): take it down first"
		say "it is up already"
		return 0
	fi
	down
	[ -x "$kubernetes/kubelet" ] || die "no kubelet in $kubernetes: build.sh builds it"
	[ -s "$CLUSTER/images/sandbox" ] || die "no images in $CLUSTER/images: images.sh makes them"
	mkdir -p "$run" "$logs"
	rm -f "$logs"/*.log
	settings >"$run/settings"
	echo "nameserver 127.0.0.1" >"$run/resolv.conf"
	# Kubelets set these for the whole machine; down puts them back.
	for i in $tunables; do echo "$i=$(sysctl -n "$i")"; done >"$run/sysctls"
	trap 'echo "cluster.sh: the cluster is not up; its logs are in $logs; cluster.sh down removes what there is of it" >&2' ERR
	control_plane
	for i in $(seq "$NODES"); do { announce "n$i"; boot "n$i"; } & pids+=($!); done
	for i in "${pids[@]}"; do wait "$i" || die "a node did not start; logs are in $logs"; done
	i=$(dns_ips)
	sed -e "s#@DNS_IP@#${i%%,*}#" -e "s#@DNS_IPS@#$(quoted "$(dns_ips)")#" -e "s#@POLICY@#$([ "$FAMILIES" = dual ] && echo RequireDualStack || echo SingleStack)#" \
		"$(dirname "$self")/coredns/coredns.yaml" | kubectl apply -f - >/dev/null
	touch "$run/up"
	if [ "$PLUGIN" = reference ]; then
		kubectl wait --for=condition=Ready node --all --timeout=90s >/dev/null
		say "all nodes are Ready"
	fi
}
# Ends all processes of a node, and waits until they are gone.
halt() {
	local name=$1 f
	end "$run/$name/pid"
	for f in "$run/$name"/*pid; do
		[ ! -e "$f" ] || gone "$f" || end "$f"
	done
	rm -f "$run/$name"/*pid
}
leave() {
	local name=$1 f
	[ -d "$run/$name" ] && [ "$name" != cp ] || die "no node is called $name"
	halt "$name"
	kubectl delete node "$name" --ignore-not-found >/dev/null
	drop_cgroups "$name"
	for f in $(families); do net cp ip "-$f" route flush via "$("net$f" "$(host "$name")")"; done
	rm -rf --one-file-system "${run:?}/$name"
}
down() {
	local name
	[ -e "$run" ] || return 0
	for name in $(names); do halt "$name"; done
	for name in $(names); do drop_cgroups "$name"; done
	[ ! -s "$run/sysctls" ] || xargs sysctl -qw <"$run/sysctls" || true
	rm -rf --one-file-system "$run"
	say "the cluster is gone"
}
status() {
	local name f
	for name in $(names); do
		for f in "$run/$name"/*pid; do
			[ ! -e "$f" ] || printf '%-4s %-20s %s\n' "$name" "$(basename "${f%pid}" .)" "$(alive "$f" && echo runs || echo DEAD)"
		done
	done
	[ ! -e "$run/up" ] || kubectl get nodes -o wide
}

command=${1:-}
shift || true
case $command in
up) lock && up ;;
down) lock && down ;;
is-up) is_up ;;
attend) cat >/dev/null && lock && down ;;
status) status ;;
join) lock && announce "$1" && boot "$1" ;;
leave) lock && leave "$1" ;;
reboot) lock && halt "$1" && boot "$1" ;;
kubectl) become cp "$kubernetes/kubectl" --kubeconfig "$run/admin.conf" "$@" ;;
exec) enter "$@" ;;
outside) become cp "$@" ;;
beside) exec nsenter -t "$(pid_in "$run/cp/pid")" -n -p -- "$@" ;;
kubelet)
	lock
	end_daemon "$1" kubelet
	kubelet "$1"
	;;
apiserver)
	end_daemon cp apiserver
	api_server "$@"
	;;
load)
	mapfile -t files < <(realpath -- "$@") # a node has another working directory
	remember "${files[@]}"
	for name in $(names); do [ "$name" = cp ] || load_into "$name" "${files[@]}"; done
	;;
server) api ;;
pods) cluster_cidrs ;;
balancers) balancer_cidrs ;;
_init) init "$@" ;;
_route) route ;;
*) sed -n '2,/^set /p' "$self" | grep '^#' | cut -c3-; exit 2 ;;
esac

#!/usr/bin/env bash
# Builds Kubernetes, etcd, containerd, CoreDNS, Traefik, MetalLB and the upstream tests from their Go modules, as the go.mod files beside pin them, and
# a tunnel of ours, into $CLUSTER/bin, and puts what they need beside, into $CLUSTER/manifests. What is there already costs Go's own comparison.
#   CLUSTER=DIR build.sh           all of it, with the newest Kubernetes
#   CLUSTER=DIR build.sh oldest    the oldest Kubernetes that Sluice supports, into $CLUSTER/bin/oldest
set -euo pipefail
cd "$(dirname "$0")"
bin=${CLUSTER:?where the cluster lives}/bin
mkdir -p "$bin"
export CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false"

# versioned MODULE: the linker's flags that have Kubernetes say which version of it the module pins
versioned() {
	local version minor it=k8s.io/component-base/version
	version=$(cd "$1" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
	minor=${version#v1.} minor=${minor%%.*}
	echo "-s -w -X $it.gitVersion=$version -X $it.gitMajor=1 -X $it.gitMinor=$minor -X $it.gitTreeState=clean -X $it.buildDate=1970-01-01T00:00:00Z"
}
# build TITLE MODULE ARGUMENTS...
build() {
	local title=$1 module=$2 started=$SECONDS
	shift 2
	echo "    $title ..."
	(cd "$module" && nice go build "$@")
	echo "    $title: $((SECONDS - started)) s"
}

k=k8s.io/kubernetes
# kubernetes MODULE DIRECTORY: what runs on nodes and in the control plane, and kubectl
kubernetes() {
	local flags
	flags=$(versioned "$1")
	build 'Kubernetes (a quarter of an hour at the first time)' "$1" -ldflags "$flags" -o "$2/" \
		$k/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl}
}
if [ "${1:-}" = oldest ]; then
	kubernetes oldest "$bin/oldest"
	exit
fi

kubernetes kubernetes "$bin"
build etcd kubernetes -ldflags '-s -w' -o "$bin/etcd" go.etcd.io/etcd/server/v3
build 'what runs in the pods of tests' kubernetes -ldflags '-s -w' -o "$bin/" $k/test/images/{agnhost,nonewprivs,regression-issue-74839} ./images
build 'a tunnel for the API server' tunnel -ldflags '-s -w' -o "$bin/tunnel" .
build CoreDNS coredns -ldflags '-s -w' -o "$bin/coredns" .

c=github.com/containerd/containerd/v2
static='osusergo netgo static_build urfave_cli_no_docs'
of="-s -w -X $c/version.Version=$(cd containerd && go list -m -f '{{.Version}}' $c)"
build containerd containerd -tags "$static" -ldflags "$of" -o "$bin/" $c/cmd/{containerd,ctr}
build 'the shim of containerd' containerd -tags "$static no_grpc" -ldflags "$of" -o "$bin/" $c/cmd/containerd-shim-runc-v2

# Traefik takes certificates from some two hundred providers of DNS, by the libraries of each, if it is told to. Nobody tells it here: it is
# built with a copy of the module that has them, without them.
l=github.com/go-acme/lego/v4
work=$CLUSTER/traefik
rm -rf "$work"
mkdir -p "$work"
cp -r --no-preserve=mode "$(cd traefik && go mod download $l && go list -m -f '{{.Dir}}' $l)" "$work/lego"
find "$work/lego/providers/dns" -mindepth 1 -delete
cp traefik/dns/providers.go "$work/lego/providers/dns/"
cp traefik/go.{mod,sum} "$work/"
go mod edit -replace "$l=$work/lego" "$work/go.mod"
build Traefik traefik -modfile "$work/go.mod" -ldflags '-s -w' -o "$bin/traefik" github.com/traefik/traefik/v3/cmd/traefik

m=go.universe.tf/metallb
build MetalLB metallb -ldflags '-s -w' -o "$bin/metallb/" $m/{controller,speaker}
install -D -m 644 "$(cd metallb && go list -m -f '{{.Dir}}' $m)/config/manifests/metallb-native.yaml" "$CLUSTER/manifests/metallb.yaml"

build ginkgo e2e -ldflags '-s -w' -o "$bin/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
install -D -m 644 "$(cd policies && go mod download && go list -m -f '{{.Dir}}' sigs.k8s.io/network-policy-api)"/config/crd/experimental/*_clusternetworkpolicies.yaml \
	"$CLUSTER/manifests/clusternetworkpolicies.yaml"
echo '    the upstream tests ...'
flags=$(versioned e2e)
(cd e2e && nice go test -c -ldflags "$flags" -o "$bin/e2e.test" .)

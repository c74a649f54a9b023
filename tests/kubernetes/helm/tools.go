//go:build tools

// Package tools pins what build.sh builds, so that "go mod tidy" keeps it.
package tools

import _ "helm.sh/helm/v4/cmd/helm"

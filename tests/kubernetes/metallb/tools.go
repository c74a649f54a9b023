//go:build tools

// Package tools pins what build.sh builds, so that "go mod tidy" keeps it.
package tools

import (
	_ "go.universe.tf/metallb/controller"
	_ "go.universe.tf/metallb/speaker"
)

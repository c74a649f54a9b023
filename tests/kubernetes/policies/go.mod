module sluice.test/policies

go 1.25.0

// Only its files are read: nothing imports it.
require sigs.k8s.io/network-policy-api v0.2.0

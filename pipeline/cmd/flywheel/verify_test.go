package main

import (
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
)

// The module cache-server has a test with the same long name.
func TestGRPCIsWhereTheModulePutsIt(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"attic-cache.example.org": "grpcs://attic-cache-grpc.example.org",
		"a23456789-123456789-123456789-123456789-123456789-12345678.example.org":  "grpcs://a23456789-123456789-123456789-123456789-123456789-12345678-grpc.example.org",
		"a23456789-123456789-123456789-123456789-123456789-123456789.example.org": "grpcs://a23456789-123456789-123456789-123456789-123456789-f112e6f4-grpc.example.org",
	} {
		if got := grpcOf(environment.Environment{Host: host}); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

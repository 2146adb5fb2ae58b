package nix

import "testing"

func TestTemporaryFault(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]bool{
		"error: unable to download 'http://c/nar/x.nar': HTTP error 503 ('Service Unavailable')":             true,
		"error: unable to download 'https://c/x': Couldn't connect to server (7)":                            true,
		"error: unable to download 'https://c/x': Couldn't resolve host name (6)":                            true,
		"error: unable to download 'https://c/x': Timeout was reached (28)":                                  true,
		"error: some substitutes for the outputs of derivation '/s/a.drv' failed (usually happens due to …)": true,
		"error: file 'nar/abc.nar.zst' does not exist in binary cache 'http://c'":                            true,
		"curl: (6) Could not resolve host: example.org":                                                      true,
		"error: unable to download 'https://c/x': HTTP error 404":                                            false,
		"error: builder for '/s/a.drv' failed with exit code 1":                                              false,
		"error: undefined variable 'x'":                                                                      false,
		"error: hash mismatch in fixed-output derivation '/s/a.drv'":                                         false,
		"": false,
	} {
		if got := (&BuildError{Message: message}).TemporaryFault(); got != want {
			t.Errorf("%s: %t", message, got)
		}
	}
}

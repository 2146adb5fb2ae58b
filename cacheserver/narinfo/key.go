package narinfo

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// ErrKey is wrapped by errors about keys.
var ErrKey = errors.New("malformed key")

// SecretKey signs the narinfos of a cache. Its name is how clients find the
// public key that goes with a signature.
type SecretKey struct {
	Name string
	key  ed25519.PrivateKey
}

// GenerateKey makes a new key.
func GenerateKey(name string) (SecretKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return SecretKey{}, fmt.Errorf("generating key %s: %w", name, err)
	}
	return SecretKey{Name: name, key: key}, nil
}

// ParseSecretKey reads "name:base64 of seed and public key", as
// `nix-store --generate-binary-cache-key` writes it.
func ParseSecretKey(s string) (SecretKey, error) {
	name, raw, err := splitKey(s, ed25519.PrivateKeySize)
	if err != nil {
		return SecretKey{}, err
	}
	key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if !key.Equal(ed25519.PrivateKey(raw)) {
		return SecretKey{}, fmt.Errorf("%w: its public half does not belong to its secret half", ErrKey)
	}
	return SecretKey{Name: name, key: key}, nil
}

// splitKey's errors never quote the key.
func splitKey(s string, size int) (string, []byte, error) {
	name, encoded, ok := strings.Cut(strings.TrimSpace(s), ":")
	if !ok || name == "" || !printable(name) {
		return "", nil, fmt.Errorf("%w: want name:base64", ErrKey)
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != size {
		return "", nil, fmt.Errorf("%w: what follows the name is not the base64 of %d bytes", ErrKey, size)
	}
	return name, raw, nil
}

// Reveal returns the key as ParseSecretKey reads it.
func (k SecretKey) Reveal() string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(k.key)
}

// String keeps the key out of logs.
func (k SecretKey) String() string { return k.Name + ":…" }

// Public returns the public key as it stands in trusted-public-keys.
func (k SecretKey) Public() string {
	public, _ := k.key.Public().(ed25519.PublicKey)
	return k.Name + ":" + base64.StdEncoding.EncodeToString(public)
}

// Sign returns the value of a Sig field for n.
func (k SecretKey) Sign(n *NarInfo) string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(ed25519.Sign(k.key, []byte(n.Fingerprint())))
}

// Signed says whether one of n's signatures is by publicKey ("name:base64").
func (n *NarInfo) Signed(publicKey string) (bool, error) {
	name, raw, err := splitKey(publicKey, ed25519.PublicKeySize)
	if err != nil {
		return false, err
	}
	for _, s := range n.Signatures {
		signer, encoded, _ := strings.Cut(s, ":")
		sig, err := base64.StdEncoding.DecodeString(encoded)
		if signer == name && err == nil && ed25519.Verify(raw, []byte(n.Fingerprint()), sig) {
			return true, nil
		}
	}
	return false, nil
}

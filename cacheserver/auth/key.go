package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/golang-jwt/jwt/v5"
)

// ErrKey is wrapped by errors about keys.
var ErrKey = errors.New("malformed key")

const (
	minSecret    = 32 // bytes of an HS256 key: as many as its hash (RFC 7518, 3.2)
	newSecret    = 64
	minRSA       = 2048 // bits
	maxKeyFile   = 64 << 10
	privateBlock = "RSA PRIVATE KEY"
)

// Secret is text that is not to be shown. Its String is not the text.
type Secret string

func (Secret) String() string               { return "…" }
func (Secret) GoString() string             { return `"…"` }
func (Secret) MarshalText() ([]byte, error) { return []byte("…"), nil }

// Key signs or checks the tokens of this server.
type Key struct {
	method jwt.SigningMethod
	sign   any // nil where it only checks
	check  jwt.VerificationKey
}

// Algorithm is "HS256" or "RS256".
func (k Key) Algorithm() string { return k.method.Alg() }

// String keeps the key out of logs.
func (k Key) String() string   { return k.method.Alg() + " key" }
func (k Key) GoString() string { return k.String() }

// Public returns the PEM of the public half of an RS256 key, which ParseRS256
// reads. An HS256 key has none.
func (k Key) Public() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(k.check)
	if err != nil {
		return "", fmt.Errorf("the public half of an %s: %w", k, err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// GenerateHS256 returns a new HS256 key as ParseHS256 reads it.
func GenerateHS256() Secret {
	key := make([]byte, newSecret)
	_, _ = rand.Read(key) // never fails
	return Secret(base64.StdEncoding.EncodeToString(key))
}

// GenerateRS256 returns a new RS256 key of 4096 bits as ParseRS256 reads it.
func GenerateRS256() (Secret, error) {
	const bits = 4096
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return "", fmt.Errorf("generating an RSA key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return Secret(base64.StdEncoding.EncodeToString(text)), nil
}

// ParseHS256 reads an HS256 key, the base64 of at least 32 bytes.
func ParseHS256(s Secret) (Key, error) {
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace([]byte(s))))
	if err != nil {
		return Key{}, fmt.Errorf("%w: an HS256 key is base64", ErrKey)
	}
	if len(key) < minSecret {
		return Key{}, fmt.Errorf("%w: an HS256 key has at least %d bytes, not %d", ErrKey, minSecret, len(key))
	}
	return Key{jwt.SigningMethodHS256, key, key}, nil
}

// ParseRS256 reads an RSA key of at least 2048 bits: PEM of a private key
// (PKCS #1 or #8) or of a public one (PKCS #1 or PKIX), or base64 of such PEM. A
// public key only checks.
func ParseRS256(s Secret) (Key, error) {
	text := bytes.TrimSpace([]byte(s))
	if !bytes.HasPrefix(text, []byte("-----BEGIN ")) {
		decoded, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil {
			return Key{}, fmt.Errorf("%w: an RS256 key is PEM or the base64 of PEM", ErrKey)
		}
		text = decoded
	}
	k := Key{method: jwt.SigningMethodRS256}
	var public *rsa.PublicKey
	if private, err := jwt.ParseRSAPrivateKeyFromPEM(text); err == nil {
		k.sign, public = private, &private.PublicKey
	} else if public, err = jwt.ParseRSAPublicKeyFromPEM(text); err != nil {
		return Key{}, fmt.Errorf("%w: an RS256 key is the PEM of an RSA key, without a password", ErrKey)
	}
	if bits := public.N.BitLen(); bits < minRSA {
		return Key{}, fmt.Errorf("%w: an RS256 key has at least %d bits, not %d", ErrKey, minRSA, bits)
	}
	k.check = public
	return k, nil
}

// ReadHS256 reads what ParseHS256 reads from a file.
func ReadHS256(file string) (Key, error) { return readKey(file, ParseHS256) }

// ReadRS256 reads what ParseRS256 reads from a file.
func ReadRS256(file string) (Key, error) { return readKey(file, ParseRS256) }

func readKey(file string, parse func(Secret) (Key, error)) (Key, error) {
	text, err := readSmall(file)
	if err != nil {
		return Key{}, fmt.Errorf("reading a key: %w", err)
	}
	k, err := parse(Secret(text))
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

// readSmall reads a file of at most maxKeyFile bytes.
func readSmall(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(text) > maxKeyFile {
		err = fmt.Errorf("%s is longer than %d bytes", file, maxKeyFile)
	}
	return text, err
}

// The environment variables that may hold keys: this server's own and Attic's.
var keyVariables = []struct {
	name  string
	parse func(Secret) (Key, error)
}{
	{"CACHESERVER_TOKEN_HS256_SECRET_BASE64", ParseHS256},
	{"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", ParseHS256},
	{"CACHESERVER_TOKEN_RS256_SECRET_BASE64", ParseRS256},
	{"ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64", ParseRS256},
	{"CACHESERVER_TOKEN_RS256_PUBKEY_BASE64", ParseRS256},
	{"ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64", ParseRS256},
}

// KeysFrom returns the keys that the environment holds, this server's variables
// before Attic's, HS256 before RS256, private before public. getenv is os.Getenv.
func KeysFrom(getenv func(string) string) ([]Key, error) {
	var keys []Key
	for _, v := range keyVariables {
		text := getenv(v.name)
		if text == "" {
			continue
		}
		k, err := v.parse(Secret(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

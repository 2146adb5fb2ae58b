package auth

import (
	"encoding/base64"
	"strings"
)

const (
	// maxToken bounds a token, in bytes: one of GitLab takes about 3 KiB, one of
	// Attic 60 bytes for each of its caches.
	maxToken = 16 << 10
	// maxHeader has room for a token as the password of Basic.
	maxHeader = maxToken*4/3 + 1<<10
)

// tokenOf returns the token in an Authorization header.
func tokenOf(header string) (string, error) {
	if len(header) > maxHeader {
		return "", ErrTooLarge
	}
	scheme, rest, _ := strings.Cut(header, " ")
	token := strings.TrimSpace(rest)
	switch {
	case strings.EqualFold(scheme, "Bearer"):
	case strings.EqualFold(scheme, "Basic"):
		pair, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return "", ErrHeader
		}
		// A user name holds no colon; the password may.
		_, token, _ = strings.Cut(string(pair), ":")
	default:
		return "", ErrHeader
	}
	switch {
	case token == "":
		return "", ErrHeader
	case len(token) > maxToken:
		return "", ErrTooLarge
	}
	return token, nil
}

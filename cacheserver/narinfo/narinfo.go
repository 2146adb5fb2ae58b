// Package narinfo reads, writes and signs narinfo files: what a binary cache
// says of one store path. The format is the one that Nix's own
// nar-info.cc reads and writes.
package narinfo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// ContentType is the media type of a narinfo.
const ContentType = "text/x-nix-narinfo"

// MaxSize is the longest narinfo that Parse takes, in bytes.
const MaxSize = 1 << 20

// ErrMalformed is wrapped by every error of Parse, and by those of Check.
var ErrMalformed = errors.New("malformed narinfo")

// NarInfo is a narinfo's contents.
type NarInfo struct {
	StorePath   string // full
	URL         string // of the NAR, relative to the cache or absolute
	Compression string // of the NAR; "bzip2" where a file does not say
	FileHash    digest.Hash
	FileSize    int64 // bytes; 0 where a file does not say
	NarHash     digest.Hash
	NarSize     int64    // bytes
	References  []string // base names
	Deriver     string   // base name, or empty
	Signatures  []string // "name:base64"
	CA          string   // content address, or empty
}

// Parse reads a narinfo. Fields that it does not know are passed over, as Nix
// does; what is missing, doubled or malformed is an error. It does not look at
// the paths: Check does.
func Parse(text []byte) (*NarInfo, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(text), MaxSize)
	}
	n := &NarInfo{}
	seen := map[string]bool{}
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%w, line %d: no colon in %.80q", ErrMalformed, i+1, line)
		}
		value = strings.TrimPrefix(value, " ")
		if seen[key] && key != "Sig" && value != "" {
			return nil, fmt.Errorf("%w, line %d: a second %s", ErrMalformed, i+1, key)
		}
		seen[key] = seen[key] || value != ""
		if err := n.set(key, value); err != nil {
			return nil, fmt.Errorf("%w, line %d: %s: %w", ErrMalformed, i+1, key, err)
		}
	}
	for _, key := range []string{"StorePath", "NarHash", "NarSize"} {
		if !seen[key] {
			return nil, fmt.Errorf("%w: no %s", ErrMalformed, key)
		}
	}
	if n.Compression == "" {
		n.Compression = "bzip2"
	}
	return n, nil
}

func (n *NarInfo) set(key, value string) (err error) {
	switch key {
	case "StorePath":
		n.StorePath = value
	case "URL":
		n.URL = value
	case "Compression":
		n.Compression = value
	case "FileHash":
		n.FileHash, err = digest.Parse(value)
	case "FileSize":
		n.FileSize, err = size(value)
	case "NarHash":
		n.NarHash, err = digest.Parse(value)
	case "NarSize":
		n.NarSize, err = size(value)
	case "References":
		if value != "" {
			n.References = strings.Split(value, " ")
		}
	case "Deriver":
		if value != "unknown-deriver" {
			n.Deriver = value
		}
	case "Sig":
		n.Signatures = append(n.Signatures, value)
	case "CA":
		n.CA = value
	}
	return err
}

func size(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || s[0] == '+' {
		return 0, fmt.Errorf("%.40q is not a number of bytes above 0", s)
	}
	return n, nil
}

// Check says whether paths, references, deriver, signatures and content
// address can stand in the narinfo of a path in storeDir.
func (n *NarInfo) Check(storeDir string) error {
	if _, err := storepath.Base(storeDir, n.StorePath); err != nil {
		return fmt.Errorf("%w: StorePath: %w", ErrMalformed, err)
	}
	for _, r := range n.References {
		if _, _, err := storepath.Split(r); err != nil {
			return fmt.Errorf("%w: References: %w", ErrMalformed, err)
		}
	}
	if n.Deriver != "" {
		if _, _, err := storepath.Split(n.Deriver); err != nil {
			return fmt.Errorf("%w: Deriver: %w", ErrMalformed, err)
		}
	}
	for _, s := range n.Signatures {
		if name, sig, ok := strings.Cut(s, ":"); !ok || name == "" || sig == "" || !printable(s) {
			return fmt.Errorf("%w: Sig: %.120q is not name:base64", ErrMalformed, s)
		}
	}
	if !printable(n.CA) || !printable(n.URL) || !printable(n.Compression) {
		return fmt.Errorf("%w: a field holds characters that no narinfo can", ErrMalformed)
	}
	return nil
}

// printable refuses what would end the line, or split the value where the
// index keeps several.
func printable(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// Text returns the narinfo as Nix writes it: its fields in Nix's order, hashes
// in Nix's base 32, references sorted.
func (n *NarInfo) Text() []byte {
	var b bytes.Buffer
	line := func(key, value string) { fmt.Fprintf(&b, "%s: %s\n", key, value) }
	line("StorePath", n.StorePath)
	if n.URL != "" {
		line("URL", n.URL)
		line("Compression", n.Compression)
	}
	if n.FileSize > 0 {
		line("FileHash", n.FileHash.Nix())
		line("FileSize", strconv.FormatInt(n.FileSize, 10))
	}
	line("NarHash", n.NarHash.Nix())
	line("NarSize", strconv.FormatInt(n.NarSize, 10))
	line("References", strings.Join(slices.Sorted(slices.Values(n.References)), " "))
	if n.Deriver != "" {
		line("Deriver", n.Deriver)
	}
	for _, s := range n.Signatures {
		line("Sig", s)
	}
	if n.CA != "" {
		line("CA", n.CA)
	}
	return b.Bytes()
}

// Fingerprint returns the text that is signed: what a client must be able to
// trust of a path. Its CA and its deriver are not in it.
func (n *NarInfo) Fingerprint() string {
	dir, _, _ := strings.Cut(n.StorePath, "/"+storepath.Hash(n.StorePath))
	full := make([]string, len(n.References))
	for i, r := range n.References {
		full[i] = dir + "/" + r
	}
	slices.Sort(full)
	return fmt.Sprintf("1;%s;%s;%d;%s", n.StorePath, n.NarHash.Nix(), n.NarSize, strings.Join(full, ","))
}

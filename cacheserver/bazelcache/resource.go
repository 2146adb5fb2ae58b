package bazelcache

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// maxInstance is the longest name of an instance, in bytes.
const maxInstance = 255

// keywords are what no part of an instance's name may be, so that resource names
// can be told apart.
var keywords = []string{"blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs"}

func checkInstance(name string) error {
	if name == "" {
		return nil
	}
	if len(name) > maxInstance || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%w: instance name %.80q: want at most %d bytes of UTF-8 without control characters", errInvalid, name, maxInstance)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || slices.Contains(keywords, part) {
			return fmt.Errorf("%w: instance name %.80q has the part %q", errInvalid, name, part)
		}
	}
	return nil
}

// resource is a blob as ByteStream names it.
type resource struct {
	instance string
	upload   string // the UUID of an upload; empty for a read
	zstd     bool   // the bytes are compressed
	fn       function
	digest.Digest
}

// key tells uploads apart. What a client puts behind the size does not count.
func (r resource) key() string {
	return fmt.Sprintf("%s\x00%s\x00%t\x00%d\x00%s", r.instance, r.upload, r.zstd, r.fn, r.Digest)
}

const (
	partUploads    = "uploads"
	partBlobs      = "blobs"
	partCompressed = "compressed-blobs"
)

// parseRead reads [instance/](blobs|compressed-blobs/zstd)/[function/]hash/size.
func parseRead(name string) (resource, error) {
	r, rest, err := parseResource(name, partBlobs, partCompressed)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: something follows the size", errInvalid)
	}
	if err != nil {
		return resource{}, fmt.Errorf("resource name %.300q: %w", name, err)
	}
	return r, nil
}

// parseWrite reads [instance/]uploads/uuid/ and a name as that of a read, which
// anything may follow.
func parseWrite(name string) (resource, error) {
	r, _, err := parseResource(name, partUploads)
	if err != nil {
		return resource{}, fmt.Errorf("resource name %.300q: %w", name, err)
	}
	return r, nil
}

// parseResource reads a name in which one of the given parts ends the instance.
func parseResource(name string, begin ...string) (r resource, rest []string, err error) {
	parts := strings.Split(name, "/")
	at := slices.IndexFunc(parts, func(p string) bool { return slices.Contains(begin, p) })
	if at < 0 {
		return r, nil, fmt.Errorf("%w: it has none of the parts %s", errInvalid, strings.Join(begin, ", "))
	}
	r.instance = strings.Join(parts[:at], "/")
	if at > 0 && r.instance == "" {
		return r, nil, fmt.Errorf("%w: it begins with a slash", errInvalid)
	}
	if err := checkInstance(r.instance); err != nil {
		return r, nil, err
	}
	next := func() (p string) {
		if at < len(parts) {
			p = parts[at]
			at++
		}
		return p
	}
	kind := next()
	if kind == partUploads {
		if r.upload = next(); r.upload == "" {
			return r, nil, fmt.Errorf("%w: the upload has no UUID", errInvalid)
		}
		kind = next()
	}
	switch kind {
	case partBlobs:
	case partCompressed:
		if c := next(); c != "zstd" {
			return r, nil, fmt.Errorf("%w: compressor %q; there is zstd", errInvalid, c)
		}
		r.zstd = true
	default:
		return r, nil, fmt.Errorf("%w: want blobs or compressed-blobs, not %q", errInvalid, kind)
	}
	hash := next()
	switch hash {
	case "blake3":
		r.fn, hash = functionBLAKE3, next()
	case "sha256":
		// Clients are to leave it out; one that does not says nothing wrong.
		hash = next()
	}
	if r.Hash, err = parseHash(hash); err != nil {
		return r, nil, err
	}
	size := next()
	if r.Size, err = parseSize(size); err != nil {
		return r, nil, err
	}
	return r, parts[at:], nil
}

// parseSize takes digits only, without a zero before others.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s || n < 0 {
		return 0, fmt.Errorf("%w: size %.40q", errInvalid, s)
	}
	return n, nil
}

// entry is a file of the HTTP cache.
type entry struct {
	instance string
	action   bool // of /ac, rather than of /cas
	hash     digest.Hash
}

// parsePath reads [/instance]/(ac|cas)/hash. ok is false for paths that are
// another door's.
func parsePath(path string) (e entry, ok bool) {
	rest, name := cutLast(path)
	instance, kind := cutLast(rest)
	switch kind {
	case "ac":
		e.action = true
	case "cas":
	default:
		return entry{}, false
	}
	var err error
	if e.hash, err = parseHash(name); err != nil {
		return entry{}, false
	}
	if instance != "" {
		if instance[0] != '/' {
			return entry{}, false
		}
		e.instance = instance[1:]
		if e.instance == "" || checkInstance(e.instance) != nil {
			return entry{}, false
		}
	}
	return e, true
}

// cutLast cuts a path at its last slash.
func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

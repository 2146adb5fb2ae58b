package nix

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// Closure asks nix for paths and all that they refer to, references first. It
// is for stores whose database cannot be read.
func (n *Nix) Closure(ctx context.Context, paths []string) ([]PathInfo, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	args := append([]string{"path-info", "--recursive", "--json"}, paths...)
	out, err := n.Command(ctx, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("asking nix for a closure: %w", withStderr(err))
	}
	infos, err := parsePathInfo(out)
	if err != nil {
		return nil, fmt.Errorf("asking nix for a closure: %w", err)
	}
	return referencesFirst(infos), nil
}

// jsonInfo is an entry of `nix path-info --json`.
type jsonInfo struct {
	Path       string   `json:"path"`
	NarHash    string   `json:"narHash"`
	NarSize    int64    `json:"narSize"`
	References []string `json:"references"`
	Deriver    string   `json:"deriver"`
	Ultimate   bool     `json:"ultimate"`
	Signatures []string `json:"signatures"`
	CA         string   `json:"ca"`
}

// parsePathInfo reads the array of Nix before 2.19 and the object, keyed by
// path, of later ones.
func parsePathInfo(text []byte) ([]PathInfo, error) {
	var list []jsonInfo
	if err := json.Unmarshal(text, &list); err != nil {
		var byPath map[string]*jsonInfo
		if err := json.Unmarshal(text, &byPath); err != nil {
			return nil, err
		}
		for path, info := range byPath {
			if info == nil {
				return nil, fmt.Errorf("%s is not valid", path)
			}
			info.Path = path
			list = append(list, *info)
		}
	}
	infos := make([]PathInfo, len(list))
	for i, j := range list {
		hash, err := parseSRI(j.NarHash)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", j.Path, err)
		}
		infos[i] = PathInfo{
			Path: j.Path, NarHash: hash, NarSize: j.NarSize, References: j.References,
			Deriver: j.Deriver, Ultimate: j.Ultimate, Signatures: j.Signatures, CA: j.CA,
		}
	}
	return infos, nil
}

// parseSRI reads sha256-BASE64 (W3C Subresource Integrity), and the forms of
// older versions.
func parseSRI(s string) (digest.Hash, error) {
	encoded, ok := strings.CutPrefix(s, "sha256-")
	if !ok {
		return digest.Parse(s)
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != digest.Size {
		return digest.Hash{}, fmt.Errorf("%w %.80q", digest.ErrMalformed, s)
	}
	return digest.Hash(raw), nil
}

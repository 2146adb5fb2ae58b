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
	return n.pathInfo(ctx, parsePathInfo, append([]string{"--recursive"}, paths...))
}

// Paths asks nix about paths, and returns those of them that are valid,
// references first.
func (n *Nix) Paths(ctx context.Context, paths []string) ([]PathInfo, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	// Without substituters, nix is quick to say that a path is not there.
	return n.pathInfo(ctx, parseValid, append([]string{"--option", "substitute", "false"}, paths...))
}

func (n *Nix) pathInfo(ctx context.Context, parse func([]byte) ([]PathInfo, error), args []string) ([]PathInfo, error) {
	out, err := n.Command(ctx, append([]string{"path-info", "--json"}, args...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("asking nix about paths: %w", withStderr(err))
	}
	infos, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("asking nix about paths: %w", err)
	}
	return referencesFirst(infos), nil
}

// BuildClosure is Database.BuildClosure for stores whose database cannot be
// read.
func (n *Nix) BuildClosure(ctx context.Context, paths []string) ([]PathInfo, error) {
	infos, err := n.Paths(ctx, paths)
	if err != nil {
		return nil, err
	}
	derivers := []string{"--query", "--requisites", "--include-outputs"}
	for _, p := range infos {
		if p.Deriver != "" {
			derivers = append(derivers, p.Deriver)
		}
	}
	if len(derivers) == 3 {
		return nil, nil
	}
	out, err := n.program(ctx, "nix-store", derivers...).Output()
	if err != nil {
		return nil, fmt.Errorf("asking nix what building needed: %w", withStderr(err))
	}
	return n.Paths(ctx, strings.Fields(string(out)))
}

// jsonInfo is an entry of `nix path-info --json`.
type jsonInfo struct {
	Path       string   `json:"path"`
	Valid      *bool    `json:"valid"` // false before 2.19 for a path that is not there
	NarHash    string   `json:"narHash"`
	NarSize    int64    `json:"narSize"`
	References []string `json:"references"`
	Deriver    string   `json:"deriver"`
	Ultimate   bool     `json:"ultimate"`
	Signatures []string `json:"signatures"`
	CA         string   `json:"ca"`
}

// parsePathInfo reads what parseValid reads, and wants all of the paths to be
// valid.
func parsePathInfo(text []byte) ([]PathInfo, error) {
	list, invalid, err := readPathInfo(text)
	if err != nil {
		return nil, err
	}
	if len(invalid) > 0 {
		return nil, fmt.Errorf("%s is not valid", invalid[0])
	}
	return toPathInfo(list)
}

// parseValid returns the valid paths of what `nix path-info --json` says.
func parseValid(text []byte) ([]PathInfo, error) {
	list, _, err := readPathInfo(text)
	if err != nil {
		return nil, err
	}
	return toPathInfo(list)
}

// readPathInfo reads the array of Nix before 2.19 and the object, keyed by path,
// of later ones.
func readPathInfo(text []byte) (valid []jsonInfo, invalid []string, err error) {
	var all []jsonInfo
	if err := json.Unmarshal(text, &all); err != nil {
		var byPath map[string]*jsonInfo
		if err := json.Unmarshal(text, &byPath); err != nil {
			return nil, nil, err
		}
		for path, info := range byPath {
			if info == nil {
				info = &jsonInfo{Valid: new(bool)}
			}
			info.Path = path
			all = append(all, *info)
		}
	}
	for _, j := range all {
		if j.Valid != nil && !*j.Valid {
			invalid = append(invalid, j.Path)
			continue
		}
		valid = append(valid, j)
	}
	return valid, invalid, nil
}

func toPathInfo(list []jsonInfo) ([]PathInfo, error) {
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

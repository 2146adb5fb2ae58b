package nixcache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// maxPinTime bounds for how long a pin can be said to live, in seconds: a time
// after that is no time that databases keep.
const maxPinTime = 100 * 365 * 24 * 3600

// putPin pins a path that was pushed. The right is that of pushing: who pushes a
// release says how long it stays.
func (d *Door) putPin(w http.ResponseWriter, r *http.Request, c *cache) error {
	name := r.PathValue("name")
	if err := CheckPinName(name); err != nil {
		return err
	}
	var p push.PinRequest
	if err := d.jsonBody(w, r, push.MaxPinBody, &p); err != nil {
		return err
	}
	if err := storepath.CheckHash(p.Path); err != nil {
		return err
	}
	if p.Keep < 0 || p.Keep > push.MaxPinKeep || p.ExpiresIn < 0 || p.ExpiresIn > maxPinTime {
		return fmt.Errorf("%w: keep is from 1 to %d, expiresIn at most %d seconds", push.ErrMalformed, push.MaxPinKeep, maxPinTime)
	}
	pin := index.Pin{CacheID: c.ID, Name: name, Hash: p.Path}
	if p.ExpiresIn > 0 {
		pin.Expires = time.Now().Add(time.Duration(p.ExpiresIn) * time.Second)
	}
	err := d.index.Update(r.Context(), func(tx index.Tx) error { return tx.AddPin(pin, max(1, p.Keep)) })
	if errors.Is(err, index.ErrNotFound) {
		writeJSON(w, http.StatusNotFound, push.Error{Code: push.CodeNotHeld, Message: "the cache does not hold " + p.Path + ": push it first"})
		return nil
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// CheckPinName wants a name that clients can send and people can read. Its error
// wraps push.ErrMalformed.
func CheckPinName(name string) error {
	bad := strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsGraphic(c) || c == unicode.ReplacementChar })
	// A slash is part of a name; what a client's or a proxy's URL would lose is not.
	bad = bad || strings.Contains("/"+name+"/", "//") || strings.Contains("/"+name+"/", "/./") || strings.Contains("/"+name+"/", "/../")
	if name == "" || len(name) > push.MaxPinName || bad || strings.TrimSpace(name) != name {
		return fmt.Errorf("%w: a pin has a name of 1 to %d bytes that can be printed, not %.80q", push.ErrMalformed, push.MaxPinName, name)
	}
	return nil
}

// buildTimes tells what building paths took when they were pushed.
func (d *Door) buildTimes(w http.ResponseWriter, r *http.Request, c *cache) error {
	var query push.PathsQuery
	if err := d.jsonBody(w, r, push.MaxHistoryHashes*64, &query); err != nil {
		return err
	}
	if len(query.Hashes) > push.MaxHistoryHashes {
		return fmt.Errorf("%w: more than %d hashes", push.ErrMalformed, push.MaxHistoryHashes)
	}
	answer := push.BuildTimesAnswer{BuildTimes: map[string]float64{}}
	for _, h := range query.Hashes {
		if err := storepath.CheckHash(h); err != nil {
			return err
		}
		p, err := d.index.Path(r.Context(), c.ID, h)
		switch {
		case errors.Is(err, index.ErrNotFound):
		case err != nil:
			return err
		case p.BuildTime > 0:
			answer.BuildTimes[h] = p.BuildTime.Seconds()
		}
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// jsonBody reads a body of JSON, of at most limit bytes.
func (d *Door) jsonBody(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	b, done, err := d.body(w, r, limit)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(b)
	if err != nil {
		return err
	}
	done()
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%w: %w", push.ErrMalformed, err)
	}
	return nil
}

package deploy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	stateTime = 30 * time.Second // for one request
	// maxLock bounds what a server tells of a lock; maxState, what is read of a
	// state to find out how much it holds. Bytes.
	maxLock  = 64 << 10
	maxState = 64 << 20
)

// state is a state behind OpenTofu's HTTP backend, as GitLab's.
type state struct {
	name, address, lock, unlock string
	lockMethod, unlockMethod    string
	username, password          string
	client                      *http.Client
}

// stateOf finds the state where OpenTofu does (TF_HTTP_…), or in a job of GitLab.
func stateOf(getenv func(string) string, name string) (*state, error) {
	s := &state{
		name: name, address: getenv("TF_HTTP_ADDRESS"),
		username: getenv("TF_HTTP_USERNAME"), password: getenv("TF_HTTP_PASSWORD"),
		client: &http.Client{Timeout: stateTime},
	}
	if s.address == "" {
		api, project, token := getenv("CI_API_V4_URL"), getenv("CI_PROJECT_ID"), getenv("CI_JOB_TOKEN")
		if api == "" || project == "" || token == "" {
			return nil, inputf("where the state is is not known: set TF_HTTP_ADDRESS, TF_HTTP_USERNAME and TF_HTTP_PASSWORD (in a job of GitLab it is known)")
		}
		s.address = strings.TrimSuffix(api, "/") + "/projects/" + url.PathEscape(project) + "/terraform/state/" + url.PathEscape(name)
		s.username, s.password = cmp.Or(s.username, "gitlab-ci-token"), cmp.Or(s.password, token)
	}
	if u, err := url.Parse(s.address); err != nil || u.Host == "" {
		return nil, inputf("TF_HTTP_ADDRESS %q is no URL", s.address)
	}
	s.lock = cmp.Or(getenv("TF_HTTP_LOCK_ADDRESS"), s.address+"/lock")
	s.unlock = cmp.Or(getenv("TF_HTTP_UNLOCK_ADDRESS"), s.lock)
	s.lockMethod = cmp.Or(getenv("TF_HTTP_LOCK_METHOD"), http.MethodPost)
	s.unlockMethod = cmp.Or(getenv("TF_HTTP_UNLOCK_METHOD"), http.MethodDelete)
	return s, nil
}

// environ is what OpenTofu is told. Not by -backend-config, which would be
// written into plans.
func (s *state) environ() []string {
	return []string{
		"TF_HTTP_ADDRESS=" + s.address, "TF_HTTP_LOCK_ADDRESS=" + s.lock, "TF_HTTP_UNLOCK_ADDRESS=" + s.unlock,
		"TF_HTTP_LOCK_METHOD=" + s.lockMethod, "TF_HTTP_UNLOCK_METHOD=" + s.unlockMethod,
		"TF_HTTP_USERNAME=" + s.username, "TF_HTTP_PASSWORD=" + s.password,
	}
}

// Lock is what OpenTofu says of itself when it takes a lock.
type Lock struct {
	ID        string    `json:"ID"`
	Operation string    `json:"Operation"`
	Info      string    `json:"Info"`
	Who       string    `json:"Who"`
	Version   string    `json:"Version"`
	Created   time.Time `json:"Created"`
	Path      string    `json:"Path"`
}

// LockedError says who works on the state.
type LockedError struct {
	State string
	Lock  Lock
}

func (e *LockedError) who() string {
	return fmt.Sprintf("the state %s is locked by %s since %s (%s, lock %s)", e.State,
		cmp.Or(e.Lock.Who, "somebody"), e.Lock.Created.Local().Format(time.DateTime), cmp.Or(e.Lock.Operation, "unknown"), cmp.Or(e.Lock.ID, "without ID"))
}

func (e *LockedError) Error() string {
	return e.who() + "; if that run is dead, release it with --force-unlock " + cmp.Or(e.Lock.ID, "ID") + "; nothing was applied"
}

// check reads the state and says what it holds.
func (s *state) check(ctx context.Context) (string, error) {
	status, body, err := s.request(ctx, http.MethodGet, s.address, nil, maxState)
	if err != nil {
		return "", err
	}
	switch status {
	case http.StatusNotFound, http.StatusNoContent:
		return "empty", nil
	case http.StatusOK:
	default:
		return "", s.fault(status)
	}
	if len(body) == 0 {
		return "empty", nil
	}
	var held struct {
		Serial    int64             `json:"serial"`
		Resources []json.RawMessage `json:"resources"`
	}
	if err := json.Unmarshal(body, &held); err != nil {
		return "", fmt.Errorf("the state %s is no state of OpenTofu: %w", s.name, err)
	}
	return fmt.Sprintf("serial %d, %d resources", held.Serial, len(held.Resources)), nil
}

// probeLock takes the lock and gives it back. The error is a *LockedError where
// somebody else has it.
func (s *state) probeLock(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	mine, err := json.Marshal(Lock{ID: newID(), Operation: "preflight", Who: "flywheel@" + host, Created: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("locking the state: %w", err)
	}
	status, body, err := s.request(ctx, s.lockMethod, s.lock, mine, maxLock)
	switch {
	case err != nil:
		return err
	case status == http.StatusLocked || status == http.StatusConflict:
		locked := &LockedError{State: s.name}
		_ = json.Unmarshal(body, &locked.Lock) // a server need not tell
		return locked
	case status != http.StatusOK:
		return s.fault(status)
	}
	// Also when this is cancelled: what stays locked, somebody has to release.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateTime)
	defer cancel()
	if status, _, err = s.request(ctx, s.unlockMethod, s.unlock, mine, maxLock); err == nil && status != http.StatusOK {
		err = s.fault(status)
	}
	return err
}

// release gives back the lock of a run that is dead. It names the lock, so that
// one which somebody took since is not released.
func (s *state) release(ctx context.Context, id string) error {
	body, err := json.Marshal(Lock{ID: id})
	if err != nil {
		return fmt.Errorf("releasing the lock: %w", err)
	}
	status, _, err := s.request(ctx, s.unlockMethod, s.unlock+"?ID="+url.QueryEscape(id), body, maxLock)
	switch {
	case err != nil:
		return err
	case status == http.StatusConflict || status == http.StatusLocked || status == http.StatusNotFound:
		if err := s.probeLock(ctx); err != nil {
			return err
		}
		return nil // it was released meanwhile
	case status != http.StatusOK:
		return s.fault(status)
	}
	return nil
}

// remove deletes the state.
func (s *state) remove(ctx context.Context) error {
	status, _, err := s.request(ctx, http.MethodDelete, s.address, nil, maxLock)
	if err == nil && (status < 200 || status > 299) && status != http.StatusNotFound {
		err = s.fault(status)
	}
	return err
}

func (s *state) fault(status int) error {
	switch status {
	case http.StatusUnauthorized:
		return inputf("the state %s: the token is not accepted (TF_HTTP_PASSWORD): it has expired or is of another project; nothing was applied", s.name)
	case http.StatusForbidden:
		return inputf("the state %s: %s may not do this: applying needs the role Maintainer in the project; nothing was applied", s.name, s.username)
	}
	return fmt.Errorf("the state %s: HTTP %d %s", s.name, status, http.StatusText(status))
}

func (s *state) request(ctx context.Context, method, address string, body []byte, limit int64) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("the state %s: %w", s.name, err)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	req.SetBasicAuth(s.username, s.password)
	resp, err := s.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil, context.Cause(ctx)
		}
		var request *url.Error
		if errors.As(err, &request) {
			err = request.Err
		}
		return 0, nil, fmt.Errorf("the state %s cannot be reached: %w; nothing was applied", s.name, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return 0, nil, fmt.Errorf("reading the state %s: %w", s.name, err)
	}
	return resp.StatusCode, text, nil
}

// newID is a UUID of version 4, as OpenTofu's locks have.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

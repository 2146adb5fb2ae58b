package nix

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// afterKill is how long a killed nix is waited for whose children, such as ssh,
// keep its streams open.
const afterKill = 2 * time.Second

// Copy copies valid paths, with all that they refer to, to another store, which
// is named by its URL. With fresh, the store is asked what it holds, and not nix's
// memory of what it held during the last month.
func (n *Nix) Copy(ctx context.Context, store string, paths []string, fresh bool) error {
	args := []string{"copy", "--no-check-sigs", "--to", store}
	if fresh {
		args = append(args, "--option", "narinfo-cache-positive-ttl", "0")
	}
	cmd := n.Command(ctx, append(args, paths...)...)
	cmd.WaitDelay = afterKill
	if _, err := cmd.Output(); err != nil {
		return fmt.Errorf("nix copy: %w", lastError(ctx, err))
	}
	return nil
}

// PingStore opens another store, which is named by its URL.
func (n *Nix) PingStore(ctx context.Context, store string) error {
	if _, err := n.Command(ctx, "store", "ping", "--store", store).Output(); err != nil {
		return fmt.Errorf("opening the store %s: %w", store, lastError(ctx, err))
	}
	return nil
}

// lastError is the last error that a failed nix told, in a line.
func lastError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	text := plainText(string(exit.Stderr))
	if i := strings.LastIndex(text, "error:"); i >= 0 {
		return errors.New(strings.Join(strings.Fields(text[i+len("error:"):]), " "))
	}
	return withStderr(err)
}

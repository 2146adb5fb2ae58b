package index

import (
	"context"
	"errors"
	"fmt"
)

// ErrLockLost is the error of work that held a lock which may no longer be its own.
var ErrLockLost = errors.New("the lock was lost: the database may have been restarted")

// WithLock does work under a lock. The context that work gets ends when the lock
// is lost. ErrLocked: another process holds it.
func WithLock(ctx context.Context, x Index, name string, work func(context.Context) error) error {
	lost, unlock, err := x.Lock(ctx, name)
	if err != nil {
		return fmt.Errorf("taking the lock %q: %w", name, err)
	}
	defer unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lost:
			cancel(ErrLockLost)
		case <-ctx.Done():
		}
	}()
	defer func() { <-watched }()
	defer cancel(nil)
	err = work(ctx)
	if err != nil && errors.Is(context.Cause(ctx), ErrLockLost) {
		return ErrLockLost
	}
	return err
}

package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// Packs watches a store of packs that is far away. Readers are passed on as they
// are. A store that gives no URLs still gives none.
func (o *Observer) Packs(next packstore.Store) packstore.Store {
	if o == nil {
		return next
	}
	return &watchedPacks{next, o}
}

type watchedPacks struct {
	next packstore.Store
	o    *Observer
}

// watch begins to time an operation.
func (p *watchedPacks) watch(ctx context.Context, operation, pack string, attributes ...attribute.KeyValue) (context.Context, func(error)) {
	if pack != "" {
		attributes = append(attributes, attribute.String("attic_cache.pack", pack))
	}
	ctx, end := Span(ctx, "storage "+operation, attributes...)
	start := time.Now()
	return ctx, func(err error) {
		if errors.Is(err, packstore.ErrNotFound) {
			err = nil // an answer, not a failure
		}
		p.o.storage.WithLabelValues(operation, outcomeOf(err)).Observe(time.Since(start).Seconds())
		end(err)
	}
}

// Put implements packstore.Store.
func (p *watchedPacks) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	ctx, end := p.watch(ctx, "put", name, attribute.Int64("attic_cache.bytes", size))
	err := p.next.Put(ctx, name, size, body)
	end(err)
	return err
}

// Open implements packstore.Store.
func (p *watchedPacks) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	ctx, end := p.watch(ctx, "get", name, attribute.Int64("attic_cache.offset", offset), attribute.Int64("attic_cache.bytes", length))
	r, err := p.next.Open(ctx, name, offset, length)
	end(err)
	return r, err
}

// Size implements packstore.Store.
func (p *watchedPacks) Size(ctx context.Context, name string) (int64, error) {
	ctx, end := p.watch(ctx, "head", name)
	size, err := p.next.Size(ctx, name)
	end(err)
	return size, err
}

// List implements packstore.Store. The time is that of the whole walk.
func (p *watchedPacks) List(ctx context.Context, visit func(name string, size int64) error) error {
	ctx, end := p.watch(ctx, "list", "")
	err := p.next.List(ctx, visit)
	end(err)
	return err
}

// Delete implements packstore.Store.
func (p *watchedPacks) Delete(ctx context.Context, name string) error {
	ctx, end := p.watch(ctx, "delete", name)
	err := p.next.Delete(ctx, name)
	end(err)
	return err
}

// Presign implements packstore.Presigner where next does; it is
// errors.ErrUnsupported where not.
func (p *watchedPacks) Presign(ctx context.Context, name string, ttl time.Duration) (string, error) {
	gives, ok := p.next.(packstore.Presigner)
	if !ok {
		return "", fmt.Errorf("making a URL of pack %s: %w", name, errors.ErrUnsupported)
	}
	return gives.Presign(ctx, name, ttl)
}

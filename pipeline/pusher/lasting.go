package pusher

import "slices"

// Forget drops what is known of paths that the cache holds, which a process
// that runs for days would not bear. One that is added again is asked about
// again.
func (p *Pusher) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order = slices.DeleteFunc(p.order, func(it *item) bool {
		if it.state == held {
			delete(p.items, it.Path)
		}
		return it.state == held
	})
}

// Drop gives up paths that failed, such as those that were deleted meanwhile.
func (p *Pusher) Drop(paths []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, path := range paths {
		if it, ok := p.items[path]; ok && it.state == failed {
			delete(p.items, path)
			p.order = slices.DeleteFunc(p.order, func(o *item) bool { return o == it })
		}
	}
}

// Retry queues again what failed, in the order in which it was added, unless the
// cache is away: then that is done when it is back.
func (p *Pusher) Retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away != nil || p.closed {
		return
	}
	for _, it := range p.order {
		if it.state == failed {
			p.queue(it)
		}
	}
}

// Failed returns the paths that could not be sent and do not wait.
func (p *Pusher) Failed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var paths []string
	for _, it := range p.order {
		if it.state == failed {
			paths = append(paths, it.Path)
		}
	}
	return paths
}

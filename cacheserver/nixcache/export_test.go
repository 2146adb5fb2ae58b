package nixcache

import "time"

// Hurry makes the door wait less for its upstreams.
func (d *Door) Hurry(wait time.Duration) {
	for _, list := range d.pulls.upstreams {
		for _, u := range list {
			u.own.ResponseHeaderTimeout, u.stall = wait, wait
		}
	}
}

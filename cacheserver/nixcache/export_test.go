package nixcache

import "time"

// HurryHeader makes the door wait less for the headers of an upstream's answers.
func (d *Door) HurryHeader(url string, wait time.Duration) {
	d.eachUpstream(url, func(u *upstream) { u.own.ResponseHeaderTimeout = wait })
}

// HurryBody makes the door wait less for the bytes of an upstream's NARs.
func (d *Door) HurryBody(url string, wait time.Duration) {
	d.eachUpstream(url, func(u *upstream) { u.stall = wait })
}

func (d *Door) eachUpstream(url string, change func(u *upstream)) {
	for _, list := range d.pulls.upstreams {
		for _, u := range list {
			if u.name == url {
				change(u)
			}
		}
	}
}

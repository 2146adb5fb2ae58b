package cacheserver

import "time"

// DefaultDrainTime is how long requests under way may take to end once a server
// is told to stop.
const DefaultDrainTime = 30 * time.Second

// Drain says how a server stops.
type Drain struct {
	// Delay is how long it goes on as before, but for /readyz, so that load
	// balancers stop sending requests to it.
	Delay time.Duration
	// Time is how long requests under way may take to end after that; zero is
	// DefaultDrainTime.
	Time time.Duration
}

// Limits bound what clients may take of a server. A zero is the default.
type Limits struct {
	HeaderBytes int64         // of a request's headers
	HeaderTime  time.Duration // from a connection's first byte to a request's headers
	IdleTime    time.Duration // between two requests of a connection
	// Uploads is how many HTTP requests with bodies, and calls of gRPC that store
	// something, are worked on at a time.
	Uploads int
}

// DefaultLimits are those of a server that is told no others.
func DefaultLimits() Limits {
	return Limits{HeaderBytes: 64 << 10, HeaderTime: 10 * time.Second, IdleTime: 2 * time.Minute, Uploads: 512}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	if l.HeaderBytes == 0 {
		l.HeaderBytes = d.HeaderBytes
	}
	if l.HeaderTime == 0 {
		l.HeaderTime = d.HeaderTime
	}
	if l.IdleTime == 0 {
		l.IdleTime = d.IdleTime
	}
	if l.Uploads == 0 {
		l.Uploads = d.Uploads
	}
	return l
}

package cacheserver

import "time"

// DelayBy makes the server wait so, in place of sleeping, for its drain's delay. It is
// called before Serve.
func (s *Server) DelayBy(wait func(time.Duration)) { s.delay = wait }

package nix

import (
	"time"

	"golang.org/x/sys/unix"
)

// lifetime is the time from a file's birth to its last change, or 0 on file
// systems that remember no birth.
func lifetime(file string) time.Duration {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, file, 0, unix.STATX_BTIME|unix.STATX_MTIME, &st); err != nil {
		return 0
	}
	if st.Mask&unix.STATX_BTIME == 0 || st.Btime.Sec == 0 {
		return 0
	}
	at := func(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
	return max(0, at(st.Mtime).Sub(at(st.Btime)))
}

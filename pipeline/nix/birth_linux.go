package nix

import (
	"time"

	"golang.org/x/sys/unix"
)

// lifetime returns when a file was made and when it was last changed. ok is false
// where there is none, or on file systems that remember no birth.
func lifetime(file string) (born, changed time.Time, ok bool) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, file, 0, unix.STATX_BTIME|unix.STATX_MTIME, &st); err != nil {
		return born, changed, false
	}
	if st.Mask&unix.STATX_BTIME == 0 || st.Btime.Sec == 0 {
		return born, changed, false
	}
	at := func(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
	return at(st.Btime), at(st.Mtime), true
}

package nixtest

import (
	"os"
	"syscall"
	"testing"
)

// WriteProgram writes an executable file that can be run at once, also while other
// tests start processes: one that is between fork(2) and execve(2) would hold the
// file open for writing, and running it would fail with ETXTBSY
// (https://go.dev/issue/22315).
func WriteProgram(t testing.TB, file, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

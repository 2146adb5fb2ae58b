package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
)

// memory tells how much of it the process has had, stage by stage.
type memory struct {
	t          table
	resettable bool
}

func newMemory() *memory {
	m := &memory{t: table{columns: []string{"stage", "peak RSS"}}}
	m.reset()
	return m
}

// reset makes the kernel forget the peak (proc(5), clear_refs), after what the
// last stage left behind was given back.
func (m *memory) reset() {
	debug.FreeOSMemory()
	m.resettable = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600) == nil
}

// stage notes the peak since the last stage.
func (m *memory) stage(name string) {
	m.t.add(name, memoryOf(os.Getpid(), "VmHWM"))
	m.reset()
}

// memoryOf is a line of a process's status (proc(5)).
func memoryOf(pid int, field string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, field+": %d kB", &kib); n == 1 {
			return bytesize.Tenths(kib << 10)
		}
	}
	return unknown
}

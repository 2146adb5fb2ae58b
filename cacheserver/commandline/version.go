package commandline

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is that of the sources that this program was built from, and Go's.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return versionOf(info)
}

func versionOf(info *debug.BuildInfo) string {
	version := info.Main.Version
	if version == "" || version == "(devel)" {
		version = "unknown, built without version control"
	}
	return fmt.Sprintf("%s (%s, %s/%s)", version, info.GoVersion, runtime.GOOS, runtime.GOARCH)
}

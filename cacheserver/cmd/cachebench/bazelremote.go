package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	rivalModule  = "github.com/buchgr/bazel-remote"
	rivalVersion = "v1.3.3"
)

// buildBazelRemote builds bazel-remote from its Go module, with the versions and
// sums of its own go.mod and go.sum.
func buildBazelRemote(ctx context.Context, dir string) (binary string, err error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", rivalModule+"@"+rivalVersion)
	cmd.Dir = dir // not in this project's module, which does not know it
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if parsed := json.Unmarshal(out, &module); err != nil || parsed != nil {
		return "", fmt.Errorf("getting bazel-remote: %w: %s (--bazel-remote names a built one)", errors.Join(err, parsed), module.Error)
	}
	binary = filepath.Join(dir, "bazel-remote")
	if err := command(ctx, module.Dir, "go", "build", "-buildvcs=false", "-mod=readonly", "-o", binary, "."); err != nil {
		return "", fmt.Errorf("%w (--bazel-remote names a built one)", err)
	}
	return binary, nil
}

// startBazelRemote starts it over a directory. It logs every request; nobody reads
// that.
func startBazelRemote(ctx context.Context, binary, data string) (p *process, grpcAddress string, err error) {
	var ports [2]string
	for i := range ports {
		address, err := freeAddress(ctx)
		if err != nil {
			return nil, "", err
		}
		_, ports[i], _ = strings.Cut(address, ":")
	}
	p = &process{name: "bazel-remote", url: "http://127.0.0.1:" + ports[0], said: &bytes.Buffer{}}
	p.cmd = exec.CommandContext(ctx, binary, "--dir", data, "--max_size", "1000", "--host", "127.0.0.1", "--port", ports[0], "--grpc_port", ports[1])
	if err := p.cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("starting bazel-remote: %w", err)
	}
	return p, "127.0.0.1:" + ports[1], p.wait(ctx)
}

// blocks is what a file takes of the disk, in bytes.
func blocks(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}

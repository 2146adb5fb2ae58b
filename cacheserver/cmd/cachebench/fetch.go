package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// fetchNPM unpacks a package as npm would install it, without what it depends on.
func fetchNPM(ctx context.Context, dir, spec string) (tree string, err error) {
	if err := command(ctx, dir, "npm", "pack", "--silent", "--pack-destination", dir, spec); err != nil {
		return "", err
	}
	tarball, err := only(dir, "*.tgz")
	if err != nil {
		return "", err
	}
	tree = filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		return "", err
	}
	return tree, untar(tarball, tree)
}

// fetchDeb unpacks a package of the machine's Debian release.
func fetchDeb(ctx context.Context, dir, spec string) (tree string, err error) {
	if err := command(ctx, dir, "apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", spec); err != nil {
		return "", err
	}
	file, err := only(dir, "*.deb")
	if err != nil {
		return "", err
	}
	tree = filepath.Join(dir, "tree")
	return tree, command(ctx, dir, "dpkg-deb", "-x", file, tree)
}

// command runs a command in a directory; its error tells what it said.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %.500s", name, args[0], err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

func only(dir, pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d files %s were fetched, not one", len(found), pattern)
	}
	return found[0], nil
}

// untar unpacks the files of a gzipped tarball, without the directory that all
// of them are in.
func untar(tarball, dir string) (err error) {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", filepath.Base(tarball), err)
		}
		_, name, inside := strings.Cut(path.Clean(h.Name), "/")
		if h.Typeflag != tar.TypeReg || !inside {
			continue
		}
		if err := unpack(root, name, h.FileInfo().Mode().Perm()&0o100, r); err != nil {
			return fmt.Errorf("unpacking %s: %w", h.Name, err)
		}
	}
}

func unpack(root *os.Root, name string, executable os.FileMode, contents io.Reader) (err error) {
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600|executable)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, contents)
	return err
}

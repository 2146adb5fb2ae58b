// A CI pipeline that never builds the same Nix derivation twice.
//
// build pulls from the cache, pushes every store path to it while the build
// runs, and closes with the whole closure. Without a cache of yours, the bundled
// server runs beside it on a cache volume, so a build is reproduced locally with
// nothing but Dagger, and a second one substitutes.
//
//	dagger call build --installables .#app out export --path ./out
//	dagger call --cache https://cache.example.org/main build summary
//	dagger call validate check
//	dagger call cacheserver up
//
// Every stage runs the project's own command, flywheel, in a container.
package main

import (
	"dagger/attic-cache/internal/dagger"
)

// Base images, pinned by version. Each can be replaced by the constructor's
// argument of its name, so that a mirror or a closed network works as well.
const (
	defaultNixImage     = "nixos/nix:2.28.3"
	defaultGoImage      = "golang:1.26.1-bookworm"
	defaultTofuImage    = "ghcr.io/opentofu/opentofu:1.10.6"
	defaultBazelImage   = "gcr.io/bazel-public/bazel:8.2.1"
	defaultKubectlImage = "registry.k8s.io/kubectl:v1.34.1"
)

// AtticCache is the pipeline for one set of sources and one cache.
type AtticCache struct {
	// +private
	Source *dagger.Directory
	// +private
	Self *dagger.Directory
	// URL of the Nix cache; empty for the bundled server.
	// +private
	Cache string
	// +private
	Token *dagger.Secret
	// +private
	NixImage string
	// +private
	GoImage string
	// +private
	TofuImage string
	// +private
	BazelImage string
	// +private
	KubectlImage string
	// +private
	BazelCache string
}

func New(
	// Sources to work on: this repository, unless said otherwise.
	// +defaultPath="/"
	// +ignore=[".git", ".cache", "result", "result-*", "**/node_modules", "**/.terraform"]
	source *dagger.Directory,
	// The pipeline's own sources, from which its commands are built.
	// +defaultPath="/"
	// +ignore=["*", "!go.mod", "!go.sum", "!cacheserver", "!pipeline", "!deploy/tofu", "**/*_test.go", "**/testdata"]
	self *dagger.Directory,
	// URL of a Nix cache to pull from and push to, such as https://cache.example.org. Without one, the bundled server is used.
	// +optional
	cache string,
	// Name of the cache on that server.
	// +optional
	cacheName string,
	// Token for the cache, if it wants one.
	// +optional
	cacheToken *dagger.Secret,
	// Image with Nix.
	// +optional
	nixImage string,
	// Image with Go.
	// +optional
	goImage string,
	// Image with OpenTofu.
	// +optional
	tofuImage string,
	// Image with Bazel.
	// +optional
	bazelImage string,
	// Image with kubectl.
	// +optional
	kubectlImage string,
	// URL of a Bazel remote cache.
	// +optional
	bazelCache string,
) *AtticCache {
	if cache != "" && cacheName != "" {
		cache = joinURL(cache, cacheName)
	}
	return &AtticCache{
		Source: source, Self: self, Cache: cache, Token: cacheToken, BazelCache: bazelCache,
		NixImage: or(nixImage, defaultNixImage), GoImage: or(goImage, defaultGoImage),
		TofuImage: or(tofuImage, defaultTofuImage), BazelImage: or(bazelImage, defaultBazelImage),
		KubectlImage: or(kubectlImage, defaultKubectlImage),
	}
}

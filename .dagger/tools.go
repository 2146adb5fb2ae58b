package main

import (
	"strings"

	"dagger/attic-cache/internal/dagger"
)

// user is who the server runs as, in an image that has no users.
const user = "65532:65532"

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func joinURL(base, name string) string {
	return strings.TrimSuffix(base, "/") + "/" + strings.Trim(name, "/")
}

// command builds one of the project's commands as a static binary.
func (m *AtticCache) command(pkg string, platform dagger.Platform) *dagger.File {
	system, arch, _ := strings.Cut(string(platform), "/")
	arch, _, _ = strings.Cut(arch, "/") // without a variant, such as v8
	return dag.Container().From(m.GoImage).
		WithMountedCache("/go/pkg/mod", dag.CacheVolume("attic-cache-gomod")).
		WithMountedCache("/gocache", dag.CacheVolume("attic-cache-gobuild")).
		WithMountedDirectory("/src", m.Self).
		WithWorkdir("/src").
		WithEnvVariable("GOMODCACHE", "/go/pkg/mod").
		WithEnvVariable("GOCACHE", "/gocache").
		WithEnvVariable("CGO_ENABLED", "0").
		WithEnvVariable("GOOS", system).
		WithEnvVariable("GOARCH", arch).
		WithExec([]string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", "/out/command", pkg}).
		File("/out/command")
}

// The static command flywheel, for the platform it is called on unless another is asked for.
func (m *AtticCache) Flywheel(
	// Platform, such as linux/arm64.
	// +optional
	platform dagger.Platform,
) *dagger.File {
	return m.command("./pipeline/cmd/flywheel", dagger.Platform(or(string(platform), hostPlatform()))).WithName("flywheel")
}

// The cache server's image: one static binary that runs without root and keeps its data in /data.
func (m *AtticCache) Image(
	// Platform, such as linux/arm64.
	// +optional
	platform dagger.Platform,
) *dagger.Container {
	return m.image("cacheserver", "./cacheserver/cmd/cacheserver", "Nix binary cache over one deduplicating store", platform).
		WithDirectory("/data", dag.Directory(), dagger.ContainerWithDirectoryOpts{Owner: user}).
		WithDefaultArgs([]string{"serve", "--listen", "0.0.0.0:8080", "--data", "/data"}).
		WithDockerHealthcheck([]string{"/cacheserver", "health"}).
		WithExposedPort(8080)
}

// The image of flywheel, for what it does on a cluster: one static binary that runs without root.
func (m *AtticCache) FlywheelImage(
	// Platform, such as linux/arm64.
	// +optional
	platform dagger.Platform,
) *dagger.Container {
	return m.image("flywheel", "./pipeline/cmd/flywheel", "A pipeline's stages, and a runner fleet's tokens", platform)
}

// image has one command and nothing else.
func (m *AtticCache) image(command, pkg, description string, platform dagger.Platform) *dagger.Container {
	p := dagger.Platform(or(string(platform), hostPlatform()))
	return dag.Container(dagger.ContainerOpts{Platform: p}).
		WithFile("/"+command, m.command(pkg, p), dagger.ContainerWithFileOpts{Permissions: 0o755}).
		WithUser(user).
		WithEntrypoint([]string{"/" + command}).
		WithLabel("org.opencontainers.image.title", "attic-cache "+command).
		WithLabel("org.opencontainers.image.description", description)
}

// The bundled cache server as a service on port 8080, with its data on a cache volume.
func (m *AtticCache) Cacheserver() *dagger.Service {
	return m.Image("").
		WithMountedCache("/data", dag.CacheVolume("attic-cache-data"), dagger.ContainerWithMountedCacheOpts{Owner: user}).
		AsService(dagger.ContainerAsServiceOpts{UseEntrypoint: true})
}

// Modules that are had for their CustomResourceDefinitions and release manifests:
// nothing of them is compiled, and so they do not decide which Kubernetes the
// command check is built with.
module gitlab.com/bates-ils/projects/iac/attic-cache/deploy/tofu/internal/tools/crds

go 1.26.1

require (
	github.com/cloudnative-pg/cloudnative-pg v1.27.0
	sigs.k8s.io/external-dns v0.15.0
	sigs.k8s.io/gateway-api v1.3.0
)

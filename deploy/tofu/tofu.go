// Package tofu is the OpenTofu modules and stacks as they were when the program was
// built, so that an environment can be deployed, and removed after its branch is
// gone, without a checkout.
package tofu

import "embed"

// Files has the directories modules and stacks.
//
//go:embed modules stacks
var Files embed.FS

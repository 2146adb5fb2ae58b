package deploy

import (
	"os"
	"os/exec"
	"syscall"
)

// outlive is how OpenTofu ends when this process was killed: as if it had been
// interrupted, so that it writes the state and gives back the lock. The pipe that
// it writes to stays open through its own copy of the end that is read; without it,
// the next line that OpenTofu writes would kill it. lines is nil for what has no
// pipe of ours.
func outlive(cmd *exec.Cmd, lines *os.File) {
	cmd.SysProcAttr.Pdeathsig = syscall.SIGINT
	if lines != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, lines)
	}
}

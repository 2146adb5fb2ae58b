package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/fsck"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// exitDamage is fsck's when something was damaged and is not whole again.
const exitDamage = 3

var errDamage = errors.New("damage was found: --repair mends what can be mended and drops the rest, to be pushed again")

var errDropped = errors.New("some paths could not be saved and were dropped: push them again")

func fsckCommand() *cobra.Command {
	s := config.New()
	var repair, allLost bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Read everything back, and mend what is damaged",
		Long: `Reads every chunk back, compares it with its hash, and names the paths that damage
hits. Servers may go on; collection waits.

With --repair, packs that the index does not know are recorded (after the index
was lost: start the server once, or restore a backup of it, then repair); damaged
chunks are looked for in other packs; what no pack has is dropped with the paths
that need it, so that the next push brings it back. Where none of the packs is there
that the index knows, nothing is changed but with --all-lost: another storage was
meant, rather.
` + enginesHelp + `

Exit status: 0 all is well, or was mended without loss, 1 failed, 2 bad usage,
3 damage was found, or could not be mended without loss.`,
		Example: `  cacheserver fsck --data /var/lib/attic-cache
  cacheserver fsck --repair --storage s3:// --index postgres://…`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if allLost && !repair {
				return usageError{errors.New("--all-lost says what --repair may do: give both")}
			}
			e, err := open(cmd, s)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.Close()) }()
			checker := fsck.Checker{Packs: e.Packs, Index: e.Index, Store: e.Store, Repair: repair, AllLost: allLost, Progress: progressTo(os.Stderr)}
			r, err := checker.Run(cmd.Context())
			if errors.Is(err, index.ErrLocked) {
				return errors.New("another process is collecting, or checking, this store: try again when it is through")
			}
			if errors.Is(err, fsck.ErrAllLost) {
				return fmt.Errorf("%w, in %s: --data, --storage and --index are to be as for serve; if all packs are lost, --all-lost drops what they held", err, s.Server.Where())
			}
			printCheck(cmd.OutOrStdout(), r, repair)
			switch {
			case err != nil:
				return err
			case r.Good():
				return nil
			case !repair:
				return errDamage
			case r.Dropped > 0:
				return errDropped
			}
			return nil
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	cmd.Flags().BoolVar(&repair, "repair", false, "mend what is found")
	cmd.Flags().BoolVar(&allLost, "all-lost", false, "with --repair, drop everything where no pack is left")
	return cmd
}

// progressTo prints how far a check has come, now and then.
func progressTo(out io.Writer) func(fsck.Progress) {
	const often = 5 * time.Second
	last := time.Now()
	return func(p fsck.Progress) {
		if time.Since(last) < often {
			return
		}
		last = time.Now()
		fmt.Fprintf(out, "%d of %d packs, %d damaged chunks\n", p.Packs, p.Total, p.Damaged)
	}
}

func printCheck(out io.Writer, r *fsck.Report, repair bool) {
	fmt.Fprintf(out, "%d packs, %d chunks, %s read back\n", r.Packs, r.Chunks, bytesize.Text(r.Bytes))
	for _, d := range r.Damaged {
		fmt.Fprintf(out, "damaged   chunk %s in pack %s: %v\n", d.Chunk, d.Pack, d.Err)
	}
	for _, name := range r.Tables {
		fmt.Fprintf(out, "damaged   the table of pack %s\n", name)
	}
	if n := int64(len(r.Unknown)) - r.Foreign; n > 0 && !repair {
		fmt.Fprintf(out, "unknown   %d packs are not in the index: collection deletes them, --repair records them\n", n)
	}
	if r.Foreign > 0 && !repair {
		fmt.Fprintf(out, "unknown   %d packs are from before the index, as after one was lost: collection leaves them, --repair records them\n", r.Foreign)
	}
	for _, name := range r.BadPacks {
		fmt.Fprintf(out, "unknown   pack %s, which cannot be read\n", name)
	}
	verb := "hit      "
	if repair {
		verb = "dropped  "
		fmt.Fprintf(out, "%d packs recorded, %d chunks restored, %d dropped, %d packs rewritten\n", r.Adopted, r.Restored, r.Dropped, r.Rewritten)
	}
	for _, p := range r.Paths {
		fmt.Fprintf(out, "%s %s\n", verb, p)
	}
	if r.Good() {
		fmt.Fprintln(out, "nothing is damaged")
	}
}

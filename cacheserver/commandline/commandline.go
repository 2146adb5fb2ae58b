// Package commandline is what the commands of this repository want of a command line
// beyond what cobra does: a wrong word is bad usage wherever it stands, and output
// that was lost is no success.
package commandline

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Strict makes root, which has all its commands, refuse words that name none of them:
// cobra would print the help of the command before them, and end as if all were well.
// usage makes an error one of bad usage. A command that holds others does nothing but
// print its help.
func Strict(root *cobra.Command, usage func(error) error) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Args = func(_ *cobra.Command, words []string) error { return check(root, words, usage) }
		}
	}
	strict(root, usage)
}

func strict(c *cobra.Command, usage func(error) error) {
	for _, sub := range c.Commands() {
		strict(sub, usage)
	}
	if !c.HasSubCommands() {
		return
	}
	c.Args = func(c *cobra.Command, words []string) error { return check(c, words, usage) }
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// check wants words to name a command below c.
func check(c *cobra.Command, words []string, usage func(error) error) error {
	for _, word := range words {
		below, _, err := c.Find([]string{word})
		if err != nil || below == c {
			return usage(unknown(c, word))
		}
		c = below
	}
	return nil
}

func unknown(c *cobra.Command, word string) error {
	c.SuggestionsMinimumDistance = 2 // cobra's own for what is below the root
	meant := c.SuggestionsFor(word)
	if len(meant) == 0 {
		return fmt.Errorf("unknown command %q for %q", word, c.CommandPath())
	}
	return fmt.Errorf("unknown command %q for %q: did you mean %s?", word, c.CommandPath(), strings.Join(meant, " or "))
}

// Output is a command's standard output. It keeps the first error of writing: what
// prints as it goes has nobody to return it to, and whoever reads the output has not
// got all of it.
type Output struct {
	To  io.Writer
	err error
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	n, err := o.To.Write(b)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// Err returns why the output is not whole, or nil.
func (o *Output) Err() error {
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("the output is not whole: %w", o.err)
}
